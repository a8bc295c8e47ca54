"""The documents: links lead somewhere, commands are planned, blocks run, and tables name what a run makes."""

import itertools
import os
import re
import shlex
from functools import cache

import h5py
import numpy as np
import pandas as pd
import pytest
from astropy.io import fits
from PIL import Image
from pipeline import REPO, TEST, copy_of_the_repository, jobs_of, shown_by_each
from table_columns import not_in_the_reference

PAGES = [
    path
    for pattern in ("*.md", "docs/**/*.md", "config/*.md", "examples/*.md")
    for path in sorted(REPO.glob(pattern))
]
# What the placeholders of docs/outputs.md stand for in the run of config/test.yaml.
NAMES = {"split": "train", "n": "0", "ensemble": "metrics", "member": "0", "chunk": "0", "task": "ring"}
NAMES |= {"target": "test", "subset": "all", "question": "bar"}


def blocks(page, language):
    """The blocks of a page in a language; "" are commands."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", (REPO / page).read_text(), re.M | re.S)
    return [text for name, text in found if name == language]


def typed(page):
    """The Snakemake commands that a page shows as blocks, without what stands behind #."""
    lines = "".join(blocks(page, "")).splitlines()
    return [line.partition("  #")[0].strip() for line in lines if line.startswith("snakemake")]


def section(page, heading):
    """The cells of the tables of a section: a list of rows."""
    text = re.split(r"^## ", (REPO / page).read_text(), flags=re.M)
    (found,) = [part for part in text if part.startswith((f"{heading}\n", f"# {heading}\n"))]
    rows = [line.strip("| ").split(" | ") for line in found.splitlines() if line.startswith("|")]
    return [row for row in rows if not row[0].startswith("---")]


def quoted(cell):
    """What a cell has between backticks."""
    return re.findall(r"`([^`]+)`", cell)


@cache
def anchors(page):
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))
def test_every_link_leads_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" not in link:
            name, _, anchor = link.partition("#")
            target = (page.parent / name) if name else page
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_every_make_command_of_the_documents_has_a_target():
    targets = {}
    for folder in ("", "benchmarks"):
        text = (REPO / folder / "Makefile").read_text()
        targets[folder] = set(
            itertools.chain(*map(str.split, re.findall(r"^([a-z][a-z -]*):(?!=)", text, re.M)))
        )
    assert "demo" in targets[""] and "study-heads" in targets["benchmarks"]
    seen = set()
    # The changelog names commands that are gone.
    for page in [page for page in PAGES if page.name != "CHANGELOG.md"]:
        for folder, target in re.findall(r"(?:^|`)make (?:-C (\w+) )?([a-z-]+)", page.read_text(), re.M):
            assert target in targets[folder], f"{page}: make {folder} {target}"
            seen.add(target)
    assert {"demo", "test", "env", "env-gpu", "finetune", "report", "rulegraph"} <= seen


def test_the_readme_is_short_and_shows_real_output():
    text = (REPO / "README.md").read_text()
    assert len(text.splitlines()) <= 110
    assert "](docs/demo.png)" in text
    for page in ("reproducing", "finetuning", "survey", "campaigns", "outputs", "architecture", "zoobot"):
        assert f"(docs/{page}.md)" in text
    for file in ("CONTRIBUTING.md", "CHANGELOG.md", "CITATION.cff", "LICENSE"):
        assert f"({file})" in text


def test_the_stages_of_the_readme_are_targets():
    (line,) = re.findall(r"\*\*Stages\.\*\* (.*?) makes", (REPO / "README.md").read_text(), re.S)
    stages = {word.removeprefix("snakemake ") for word in quoted(line)}
    included = re.findall(r'^include: "rules/(\w+).smk"', (REPO / "Snakefile").read_text(), re.M)
    assert stages == set(included) - {"common"}


def test_snakemake_lists_every_rule_with_a_line_about_it():
    (shown,) = shown_by_each([(REPO, ("--list", *TEST))])
    listed = dict(re.findall(r"^(\w+)(?: \((.+)\))?$", shown, re.M))
    assert {"all", "predict", "train_member", "compare_with_truth"} <= set(listed)
    assert all(listed.values()), [name for name, about in listed.items() if not about]
    # Some rules are only there for a sample, or for labels with an address.
    text = "".join(path.read_text() for path in (REPO / "rules").glob("*.smk"))
    rules = re.findall(r"^ *(?:rule|checkpoint) (\w+):\n(.*)$", text, re.M)
    assert {name for name, first in rules if not re.fullmatch(r' +".{10,100}"', first)} == set()
    assert set(listed) <= {"all", *(name for name, _ in rules)}


@pytest.fixture(scope="module")
def plans(model_folder, tmp_path_factory):
    """The jobs that the commands of some pages plan, {command: jobs}, where the files are that they read."""
    repo = copy_of_the_repository(tmp_path_factory.mktemp("documents") / "repo")
    (repo / "slurm").symlink_to("profiles/slurm")
    (repo / "results/demo/train/metrics").mkdir(parents=True)
    (repo / "results/demo/train/metrics/0").symlink_to(model_folder)
    (repo / "mine/cutouts").mkdir(parents=True)
    Image.new("L", (24, 24)).save(repo / "mine/cutouts/one.png")
    overlay = blocks("docs/survey.md", "yaml")[0]
    (repo / "survey.yaml").write_text(overlay)
    pages = ["README.md", "config/README.md"]
    pages += [f"docs/{name}.md" for name in ("cluster", "reproducing", "survey", "explore", "export")]
    commands = [line for page in pages for line in typed(page)]
    commands = list(dict.fromkeys(line for line in commands if "--report" not in line))
    shown = shown_by_each([(repo, shlex.split(line)[1:]) for line in commands])
    return {line: jobs_of(text) for line, text in zip(commands, shown, strict=True)}


def test_the_commands_of_the_documents_plan_what_the_documents_say(plans):
    assert len(plans) == 12 and all(plans.values())
    for line in ("snakemake", "snakemake --profile slurm", "snakemake -n"):
        # Four zips and three tables; 72 shards; three models for the scores and five for the catalogue.
        counts = [plans[line][rule] for rule in ("download_file", "write_shard", "train_member")]
        assert counts == [7, 72, 8]
    assert plans["snakemake download"] == {"download_file": 7}
    assert plans["snakemake check_record"] == {"download_file": 3, "check_record": 1}
    assert plans["snakemake --configfile config/sample.yaml"]["sample_record"] == 1
    assert plans["snakemake --configfile config/demo.yaml"]["finetune_task"] == 1
    assert plans["snakemake explore --configfile survey.yaml"]["write_explorer"] == 1
    assert plans["snakemake export --configfile config/demo.yaml"]["export_model"] == 2
    for line in typed("docs/survey.md"):
        assert plans[line]["predict_chunk"] == 4
        assert not {"train_member", "build_catalog", "download_file"} & set(plans[line])


def test_the_python_of_the_survey_page_runs(model_folder, tmp_path, monkeypatch):
    (code,) = blocks("docs/survey.md", "python")
    (tmp_path / "results/demo/train/metrics").mkdir(parents=True)
    (tmp_path / "results/demo/train/metrics/0").symlink_to(model_folder)
    pixels = np.random.default_rng(1).uniform(0, 1, (3, 24, 24)).astype("float32")
    Image.fromarray((pixels[0] * 255).astype("uint8")).save(tmp_path / "one.jpg")
    fits.PrimaryHDU(pixels).writeto(tmp_path / "two.fits")
    monkeypatch.chdir(tmp_path)
    names = {}
    exec(code, names)
    assert list(names["table"]["id_str"]) == ["one", "two"]
    assert names["table"]["a_x_fraction"].between(0, 1).all()


def test_the_python_of_the_outputs_page_runs(completed, tmp_path, monkeypatch):
    os.symlink(completed / "results/test", tmp_path / "demo")
    (tmp_path / "results").symlink_to(tmp_path)
    monkeypatch.chdir(tmp_path)
    names = {}
    for code in blocks("docs/outputs.md", "python"):
        exec(code, names)
    assert names["concentrations"].shape[1] == len(names["answers"]) == 34
    assert len(names["galaxies"]) == len(names["concentrations"])


def filled(path):
    """A path of docs/outputs.md with names for its placeholders: a list, as {train,val,test} are three."""
    (choices,) = re.findall(r"\{(\w+(?:,\w+)+)\}", path) or [""]
    return [
        re.sub(r"\{(\w+)\}", lambda found: NAMES[found[1]], path.replace("{" + choices + "}", choice))
        for choice in choices.split(",")
    ]


def test_a_run_has_the_files_of_the_outputs_page(completed):
    rows = section("docs/outputs.md", "Outputs")[1:]
    rows += [[f"`evaluate/`, {row[0]}"] for row in section("docs/outputs.md", "Scores")[1:]]
    rows += section("docs/outputs.md", "Finetuning tasks")[1:]
    paths = [path for row in rows for path in paths_of(quoted(row[0]))]
    # What a smaller run does not make.
    others = r"encoder|label_counts|report\.html|representations|^search/|catalogue|manifest"
    # What has a command of its own, and what a target has if it is a folder, or if there are labels for it.
    others += r"|^export/|^explore/"
    others += r"|^predict/.*/(catalog\.\w+|scores|scored|confusion|curves|advice|not_scored|gallery)"
    paths = [path for path in paths if not re.search(others, path)]
    assert len(paths) > 35
    for name in itertools.chain(*map(filled, paths)):
        assert (completed / "results/test" / name).exists(), name


def paths_of(names):
    """The paths that a cell quotes: behind the first one stand other names in its folder, or suffixes."""
    folder, last = os.path.dirname(names[0]), names[0]
    for name in names:
        if name.startswith("."):
            name = os.path.splitext(last)[0] + name
        last = name if name.startswith(folder) else f"{folder}/{name}"
        yield last


def told(heading, cell=0):
    """What the tables of a section of docs/outputs.md quote in a column: a list for each row."""
    return [quoted(row[cell]) for row in section("docs/outputs.md", heading)[1:]]


def test_catalogues_have_the_columns_of_the_outputs_page(completed, tree):
    results = completed / "results/test"
    *named, votes = itertools.chain(*told("Catalogues"))
    assert votes == "{question}_{answer}"
    assert list(pd.read_parquet(results / "catalog/train.parquet")) == [*named, *tree.columns]
    of_task = [*named, "ring", "pixels", "part"]
    assert list(pd.read_parquet(results / "finetune/ring/galaxies.parquet")) == of_task


def test_the_flat_catalogue_has_the_columns_of_the_outputs_page(completed, tree):
    values = {
        "{answer}": tree.columns,
        "{question}": [question.name for question in tree.questions],
        "{name}": [cut.name for cut in tree.cuts],
    }
    columns = {"id_str"}
    for name in itertools.chain(*told("The flat catalogue")):
        holder = next((holder for holder in values if holder in name), "")
        columns |= {name.replace(holder, value) for value in values[holder]} if holder else {name}
    assert columns == set(pd.read_parquet(completed / "results/test/predict/test/catalog"))


def test_scores_have_the_columns_of_the_outputs_page(completed):
    folder = completed / "results/test/evaluate"
    files = [names[0] for names in told("Scores")]
    columns = {file: names for file, names in zip(files, told("Scores", 1), strict=True) if names}
    assert {"scores.csv", "losses.csv", "confusion.csv", "coverage.csv", "calibration.csv"} == set(columns)
    for file, names in columns.items():
        assert names == list(pd.read_csv(folder / file)), file
    files = [names[0] for names in told("Finetuning tasks")]
    columns = dict(zip(files, told("Finetuning tasks", 1), strict=True))
    assert set(columns["evaluate/{task}/scores.csv"]) <= set(pd.read_csv(folder / "ring/scores.csv"))
    names = {name.replace("{label}", "ring") for name in columns["evaluate/{task}/galaxies.parquet"]}
    assert names <= set(pd.read_parquet(folder / "ring/galaxies.parquet"))


def test_posteriors_have_the_parts_of_the_outputs_page(completed):
    (attributes,) = re.findall(r"^Attributes: (.*?)\. ", (REPO / "docs/outputs.md").read_text(), re.M | re.S)
    with h5py.File(completed / "results/test/predict/test/predictions.hdf5") as file:
        assert {names[0] for names in told("Posteriors")[:6]} == set(file)
        assert set(quoted(attributes)) == set(file.attrs)


def test_the_reference_has_every_column_of_a_run(completed):
    assert not_in_the_reference(completed / "results/test") == []
