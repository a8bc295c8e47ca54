"""What runs again after a change: the table of docs/reruns.md, line by line, as dry runs."""

import os
import random
import re
import shlex
import shutil
from base64 import urlsafe_b64encode
from collections import Counter

import pandas as pd
import pytest
import yaml
from pipeline import (
    REPO,
    TEST,
    copy_of_the_repository,
    edit,
    jobs_of,
    overlay,
    pretend,
    shown_by_each,
)

PAGE = (REPO / "docs/reruns.md").read_text()
LINES = re.findall(r"^\| ([^*|].*?) \| `(snakemake.*?) \| (.*?) \| (.*?) \|$", PAGE, re.M)
# Words of the table that stand for rules: {word: {rule: jobs}}.
WORDS = {
    word: {rule: int(count or 1) for rule, count in re.findall(r"`(\w+)`(?: × (\d+))?", rules)}
    for word, rules in re.findall(r"^\| \*\*(\w+)\*\* \| ([^|\s].*) \|$", PAGE, re.M)
}
CHECKOUT = "a fresh `git checkout`, all files touched"
UNRECORDED = "a run copied without `.snakemake`"
PROFILES = sorted(path.parent.name for path in (REPO / "profiles").glob("*/config.yaml"))
ZOOLIB = "workflow/scripts/zoolib"
# A small run of the paper's record; no file of it is downloaded.
RECORD = {
    "run": "record",
    "shards": {"count": {"train": 1, "val": 1, "test": 1}},
    "train": {"ensembles": [{"name": "metrics", "members": 1}]},
    "predict": {
        "chunks": 1,
        "catalog": {"format": ["fits"]},
        "targets": [{"name": "test", "ensemble": "metrics", "split": "test"}],
    },
}
RUN = yaml.safe_load((REPO / "config/test.yaml").read_text())
(TARGET,), (TASK,) = RUN["predict"]["targets"], RUN["finetune"]["tasks"]


def correct_vote(repo):
    path = repo / "results/test/download/gz_decals_volunteers_5.parquet"
    table = pd.read_parquet(path)
    table.loc[table.index[0], "smooth-or-featured_smooth"] += 1
    table.to_parquet(path)


def correct_label(repo):
    path = repo / "results/test/download/rings.csv"
    table = pd.read_csv(path)
    table.loc[0, "ring"] = 1 - table.loc[0, "ring"]
    table.to_csv(path, index=False)


def delete_shards(repo):
    for path in (repo / "results/test/shards").rglob("*.tfrecord"):
        path.unlink()


def publish_other_numbers(repo):
    folder = repo / "config/published"
    shutil.copy(folder / "walmsley_2022.yaml", folder / "mine.yaml")
    edit(folder / "mine.yaml", "{deviation: 0.1}", "{deviation: 0.2}")


def edit_words(repo):
    module = repo / ZOOLIB / "learning/likelihood.py"
    edit(module, "# The Stirling series is used from", "# The Stirling series serves from")
    edit(module, "The training loss: summed over questions", "The loss of training, summed over questions")


def touch_all(repo):
    for folder in ("Snakefile", "rules", "workflow", "config", "profiles", "envs"):
        for file in [repo / folder, *(repo / folder).rglob("*")]:
            if file.is_file():
                os.utime(file)


def be_killed(repo):
    """Leave what SIGKILL leaves: one chunk half written and marked as incomplete, and no later result."""
    chunk = "results/test/predict/test/chunks/0.hdf5"
    shutil.rmtree(repo / "results/test/predict/test")
    for path in (repo / "results/test/evaluate").iterdir():
        if path.is_file() and not path.name.startswith("learning_curves"):
            path.unlink()
    for path in (repo / "results/test/paper").iterdir():
        if not path.name.startswith("tree"):
            path.unlink()
    for folder in ("evaluate/gallery", "report/evaluate"):
        shutil.rmtree(repo / "results/test" / folder)
    (repo / chunk).parent.mkdir(parents=True)
    (repo / chunk).write_bytes(b"half")
    mark = urlsafe_b64encode(chunk.encode()).decode()
    (repo / ".snakemake/incomplete" / mark).write_text('{"external_jobid": null}')


def lose_times(repo):
    files = [path for path in (repo / "results").rglob("*") if path.is_file()]
    random.Random(1).shuffle(files)
    for number, path in enumerate(files):
        os.utime(path, (1.7e9 + number, 1.7e9 + number))


def replaced(file, old, new):
    return lambda repo: edit(repo / file, old, new)


def of_train(**keys):
    return {"train": keys}


# The change of each line: a configuration is laid over the others, a function edits the repository.
CHANGES = {
    "nothing": [],
    "the same keys in another order": [
        {
            "finetune": {"tasks": [dict(reversed(TASK.items()))]},
            "predict": dict(reversed(RUN["predict"].items())),
        }
    ],
    "a corrected vote in the table": [correct_vote],
    "a corrected label in a task's table": [correct_label],
    "a new release of the record, `zenodo.record`": [RECORD, {"zenodo": {"record": 4573249}}],
    "another `seed`": [{"seed": 7}],
    "another `seed`, galaxies of a record": [RECORD, {"seed": 7}],
    "other shares in `split`": [{"split": {"train": 0.6, "val": 0.2}}],
    "a `min_votes` or `query` of a catalogue": [{"catalogs": [{**RUN["catalogs"][0], "min_votes": 4}]}],
    "another `name` of a catalogue, which only messages use": [
        {"catalogs": [{**RUN["catalogs"][0], "name": "renamed"}]}
    ],
    "`shards.max_rejected`": [{"shards": {"max_rejected": 0.02}}],
    "`image.size`, `image.color` or `image.encoding`": [{"image": {"size": 50}}],
    "`image.crop` or `image.final_size`": [{"image": {"crop": 0.8}}],
    "shards deleted to save room": [delete_shards],
    "a new member: `members: 2`": [of_train(ensembles=[{"name": "metrics", "members": 2}])],
    "another learning rate, head, backbone or number of epochs": [of_train(learning_rate=0.0005)],
    "another `train.augmentation`": [of_train(augmentation="zoobot2")],
    "an edited step in the file of the augmentation": [
        replaced("config/augmentations/paper.yaml", "[-180, 180]", "[-90, 90]")
    ],
    "more samples or views": [{"predict": {"samples": 7}}],
    "another number of `predict.chunks`: 2": [{"predict": {"chunks": 2}}],
    "another target": [{"predict": {"targets": [TARGET, {**TARGET, "name": "val", "split": "val"}]}}],
    "another `predict.acquisition`": [{"predict": {"acquisition": "paper"}}],
    "`predict.recalibrate: false`": [{"predict": {"recalibrate": False}}],
    "another `predict.credible_level`": [{"predict": {"credible_level": 0.5}}],
    "a new task": [{"finetune": {"tasks": [TASK, {**TASK, "name": "again"}]}}],
    "a task's strategy, head or learning rate": [
        {"finetune": {"tasks": [{**TASK, "learning_rate": 0.0005}]}}
    ],
    "`evaluate.min_votes`": [{"evaluate": {"min_votes": 5}}],
    "another published file, `evaluate.published`": [
        publish_other_numbers,
        {"evaluate": {"published": "mine"}},
    ],
    "a cut in the file of the tree": [
        replaced("config/trees/gz_decals_5.yaml", "above: 0.8, votes: 20", "above: 0.7, votes: 20")
    ],
    "the title or source in the file of the tree": [
        replaced("config/trees/gz_decals_5.yaml", "title: Galaxy Zoo DECaLS 5", "title: Fixed")
    ],
    "an edited line of a module: the likelihood": [
        replaced(f"{ZOOLIB}/learning/likelihood.py", "STIRLING_FROM = 8", "STIRLING_FROM = 9")
    ],
    "an edited line of a figure: the learning curves": [
        replaced(f"{ZOOLIB}/figures/learning_curves.py", "lw=2.5, label=label", "lw=3, label=label")
    ],
    "an edited comment or docstring": [edit_words],
    CHECKOUT: [touch_all],
    "other threads or memory": [],
    "killed in the middle of a prediction": [be_killed],
    "something that Snakemake cannot know of": [],
    "a complete run copied to another cluster, with its times": [lambda repo: None],
    "a run copied without its times": [lose_times],
    UNRECORDED: [lambda repo: shutil.rmtree(repo / ".snakemake")],
}


@pytest.fixture(scope="module")
def plans(completed, tmp_path_factory):
    """{what changed: the text of a dry run}, and "everything": that of all jobs of the run."""
    folder = tmp_path_factory.mktemp("reruns")
    record = copy_of_the_repository(folder / "record")
    pretend(record, "--configfile", overlay(record, "run", RECORD))
    cases = {"everything": (completed, [*TEST, "--forceall"])}
    for number, (what, typed, _, _) in enumerate(LINES):
        changes = CHANGES[what]
        repo = record if RECORD in changes else completed
        if any(map(callable, changes)):
            repo = shutil.copytree(repo, folder / str(number), symlinks=True)
        layers = [] if RECORD in changes else [TEST[1]]
        for layer, change in enumerate(changes):
            if callable(change):
                change(repo)
            else:
                layers.append(overlay(folder, f"{number}-{layer}", change))
        *before, last = re.findall(r"`snakemake([^`]*)`", f"`{typed}")
        for command in before:
            cases[f"{what}, first"] = (repo, [*shlex.split(command), "--configfile", *layers])
        cases[what] = (repo, [*shlex.split(last), "--configfile", *layers])
    repo, _ = cases[CHECKOUT]
    for profile in PROFILES:
        cases[profile] = (repo, [*TEST, "--profile", f"profiles/{profile}", "--workflow-profile", "none"])
    more = overlay(folder, "more", CHANGES["more samples or views"][0])
    cases["changed and touched"] = (cases[UNRECORDED][0], [*TEST, more])
    repo = shutil.copytree(completed, folder / "unrecorded", ignore=shutil.ignore_patterns(".snakemake"))
    cases["changed and unrecorded"] = (repo, [*TEST, more])
    return dict(zip(cases, shown_by_each(cases.values()), strict=True))


def jobs_in(cell):
    """The jobs that a cell of the table names: {rule: jobs}."""
    found = Counter()
    for word, rule, count in re.findall(r"\*\*(\w+)\*\*|`(\w+)`(?: × (\d+))?", cell):
        found.update(WORDS[word] if word else {rule: int(count or 1)})
    return found


def test_each_line_of_the_table_has_a_change():
    assert [line[0] for line in LINES] == list(CHANGES)


@pytest.mark.parametrize("what", CHANGES)
def test_just_the_jobs_of_the_table_run_again(plans, what):
    told, left = next((told, left) for name, _, told, left in LINES if name == what)
    expected = jobs_in(told)
    if RECORD in CHANGES[what]:
        # Only simulated galaxies have a truth.
        del expected["compare_with_truth"]
    found = jobs_of(plans[what])
    assert found == expected
    everything = left == "**everything**"
    assert not set(jobs_of(plans["everything"]) if everything else jobs_in(left)) & set(found)
    assert bool(expected) != told.startswith("nothing")


def test_the_table_names_rules_that_exist(plans):
    # The run downloads nothing, its ensemble has one member, and it predicts no folder.
    known = set(jobs_of(plans["everything"])) | {"download_file", "recalibrate_ensemble", "draw_survey"}
    for word, rules in WORDS.items():
        assert set(rules) <= known and (rules or word == "everything")
    for _, _, told, left in LINES:
        assert set(jobs_in(told)) | set(jobs_in(left)) <= known


@pytest.mark.parametrize("profile", PROFILES)
def test_a_checkout_reruns_nothing_under_any_profile(plans, profile):
    assert jobs_of(plans[profile]) == {}


def test_without_metadata_a_change_is_not_noticed_until_the_run_is_touched(plans):
    """docs/reruns.md warns of this: no job runs after the change; after --touch --forceall its jobs run."""
    assert jobs_of(plans["changed and unrecorded"]) == {}
    assert "missing provenance/metadata" in plans["changed and unrecorded"]
    assert jobs_of(plans["changed and touched"]) == jobs_of(plans["more samples or views"])
