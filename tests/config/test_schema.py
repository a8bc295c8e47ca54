"""The configuration: what is accepted and completed, which messages refuse the rest, what is documented."""

import copy
import re
import subprocess
import sys
import textwrap

import pytest
import yaml
from snakemake.utils import update_config
from zoolib.config.schema import check_configuration, known_keys
from zoolib.job.logs import UserError

REAL_FILES = ("mine/votes.csv", "mine/gz2.csv", "mine/lenses.csv", "mine/images/", "mine/gz2_images/")
REAL_FILES += ("mine/fits/", "mine/model/model.keras", "mine/model/model.json", "mine/by_class/")
REAL_FILES += ("data/real/rings.csv",)
NEEDED, OPTIONAL = "*needed*", "*optional*"


@pytest.fixture(scope="module")
def schema(repo):
    return yaml.safe_load((repo / "workflow/schemas/config.schema.yaml").read_text())


@pytest.fixture(scope="module")
def base(repo):
    return yaml.safe_load((repo / "config/config.yaml").read_text())


@pytest.fixture
def folder(tmp_path, monkeypatch, base):
    """A working folder with all that the examples' paths lead to."""
    for name in REAL_FILES:
        path = tmp_path / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.touch()
    (tmp_path / "mine/record").mkdir()
    for name in [base["catalogs"][0]["table"], *base["catalogs"][0]["archives"]]:
        (tmp_path / "mine/record" / name).touch()
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def check(repo, base, folder):
    """Lay overlays over config.yaml as Snakemake does, check the result, and give it back completed."""

    def run(*overlays):
        config = copy.deepcopy(base)
        for overlay in overlays:
            update_config(config, yaml.safe_load(overlay) if isinstance(overlay, str) else overlay)
        trees = check_configuration(
            config, repo / "workflow/schemas/config.schema.yaml", repo / "config/trees"
        )
        return config, trees

    return run


def overlays(repo):
    return sorted(path for path in (repo / "config").glob("*.yaml") if path.name != "config.yaml")


def value_at(config, key):
    for part in key.split("."):
        config = config[part]
    return config


def documented(repo):
    """{key: default} of the tables of config/README.md."""
    text = (repo / "config/README.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \| ([^|]+) \|$", text, re.M)
    keys = [row[0] for row in rows if not row[0].endswith(".yaml")]
    assert len(keys) == len(set(keys))
    return {key: default.strip() for key, default, _ in rows if not key.endswith(".yaml")}


def test_every_key_is_documented_and_every_documented_key_exists(repo, schema):
    known = set(known_keys(schema))
    assert {"train.epochs", "zenodo.simulate.size", "finetune.tasks[].head.units"} <= known
    # Sections have a heading instead of a row, unless they are lists.
    sections = {key for key, entry in known_keys(schema).items() if entry.get("type") == "object"}
    sections -= {"finetune.tasks[].split", "finetune.tasks[].head"}
    assert set(documented(repo)) == known - sections
    headings = re.findall(r"^## `(\w+)`", (repo / "config/README.md").read_text(), re.M)
    assert set(headings) == {key for key in schema["properties"] if key not in ("run", "seed")}


def test_documented_defaults_are_the_configuration_s(repo, schema, base):
    for key, told in documented(repo).items():
        entry = known_keys(schema)[key]
        if told == OPTIONAL:
            assert "default" not in entry and "[]" in key
        elif told == NEEDED:
            assert "default" not in entry, key
        elif "[]" in key or key.startswith("zenodo.simulate."):
            assert yaml.safe_load(told.strip("`")) == entry["default"], key
        else:
            assert yaml.safe_load(told.strip("`")) == value_at(base, key), key


def test_needed_keys_are_called_needed(repo, schema):
    told = {key for key, default in documented(repo).items() if default == NEEDED}
    required = set()
    for key, entry in known_keys(schema).items():
        owner = entry.get("items", entry)
        required |= {f"{key}{'[]' if 'items' in entry else ''}.{name}" for name in owner.get("required", [])}
    entries = {key for key in required if "[]" in key}
    assert told == entries | {"catalogs", "train.ensembles", "predict.targets"}


def test_defaults_of_the_schema_are_the_paper_s_run(schema, base):
    for key, entry in known_keys(schema).items():
        if "default" in entry and "[]" not in key and not key.startswith("zenodo.simulate."):
            assert entry["default"] == value_at(base, key), key


def test_the_configurations_are_valid(repo, check):
    config, trees = check({})
    assert config["zenodo"]["record"] == 4573248
    assert [entry["members"] for entry in config["train"]["ensembles"]] == [3, 5]
    assert list(trees) == ["gz_decals_5"] and len(trees["gz_decals_5"].columns) == 34
    assert len(overlays(repo)) >= 3
    for path in overlays(repo):
        config, _ = check(path.read_text())
        assert config["run"] == path.stem


def test_the_examples_of_the_readme_are_valid(repo, check):
    text = (repo / "config/README.md").read_text()
    examples = re.findall(r"```yaml\n(.*?)```", text, re.S)
    assert len(examples) == 11
    for example in examples:
        on = re.search(r"--configfile config/(\w+\.yaml) my\.yaml", example)
        below = (repo / "config" / on[1]).read_text() if on else "{}"
        config, _ = check(below, example)
        for key, value in yaml.safe_load(example).items():
            assert not isinstance(value, (str, int)) or config[key] == value


def test_defaults_are_filled_however_deep(check):
    config, _ = check(
        """
        zenodo: {simulate: {size: 64}}
        catalogs: [{name: a, tree: gz_decals_5, table: gz_decals_volunteers_5.parquet}]
        train: {ensembles: [{name: metrics}]}
        predict: {targets: [{name: test, ensemble: metrics, split: test}]}
        finetune:
          tasks:
            - {name: ring, table: rings.csv, label: ring, head: {units: [8]},
               strategy: {name: layer_decay, decay: 5e-1}}
        """
    )
    assert config["zenodo"]["simulate"] == {"galaxies": 5000, "size": 64, "volunteers": "varied"}
    assert config["catalogs"][0]["min_votes"] == 1 and config["catalogs"][0]["archives"] == []
    assert config["train"]["ensembles"] == [
        {"name": "metrics", "members": 1, "splits": ["train"], "pretext": None}
    ]
    task = config["finetune"]["tasks"][0]
    assert task["strategy"] == {"name": "layer_decay", "decay": 0.5}
    assert task["split"] is None and task["kind"] is None and task["labels"] == []
    assert task["head"] == {"units": [8], "dropout": 0.3}


def test_filled_defaults_are_not_shared(check):
    task = "{name: %s, table: rings.csv, label: ring, head: {}}"
    overlay = f"finetune: {{tasks: [{task % 'a'}, {task % 'b'}]}}"
    first, second = check(overlay)[0]["finetune"]["tasks"]
    first["head"]["units"].append(1)
    assert second["head"]["units"] == [64]


def test_numbers_may_have_an_exponent(check):
    config, _ = check("{train: {learning_rate: 1e-3, epochs: 2e2, dropout: .1e0}, run: '1e3'}")
    assert config["train"]["learning_rate"] == 0.001
    assert config["train"]["dropout"] == 0.1
    assert config["train"]["epochs"] == 200 and isinstance(config["train"]["epochs"], int)
    assert config["run"] == "1e3"


def test_the_largest_seed_is_accepted(check):
    assert check("seed: 9223372036854775807")[0]["seed"] == 2**63 - 1


def test_a_configuration_that_refers_to_itself_is_refused(check):
    catalogs = []
    catalogs.append(catalogs)
    with pytest.raises(UserError, match="a part of it refers to itself"):
        check({"catalogs": catalogs})


def test_a_refused_configuration_is_left_as_it_was(repo, base):
    config = {**copy.deepcopy(base), "trian": {}}
    before = copy.deepcopy(config)
    with pytest.raises(UserError):
        check_configuration(config, repo / "workflow/schemas/config.schema.yaml", repo / "config/trees")
    assert config == before


TARGET = "{name: test, ensemble: metrics, split: test}"
TASK = "name: ring, table: rings.csv, label: ring"
SIMULATE = "zenodo: {simulate: {size: 64}}"
CATALOG = "name: a, tree: gz_decals_5, table: gz_decals_volunteers_5.parquet"
EXPORT = "name: a, tree: gz2, table: mine/votes.csv"
WRONG = {
    "unknown key": (
        "train: {epocs: 3}",
        "unknown key 'epocs' in train (did you mean 'epochs'?), expected one of augmentation, backbone, ",
    ),
    "unknown section": (
        "trian: {}",
        "unknown key 'trian' at the top level (did you mean 'train'?), expected one of catalogs, ",
    ),
    "key of another section": (
        "batch_size: 32",
        "unknown key 'batch_size' at the top level (it exists as train.batch_size and ",
    ),
    "unknown key in a list": (
        "train: {ensembles: [{nam: metrics}]}",
        "unknown key 'nam' in train.ensembles[0] (did you mean 'name'?), expected one of members, name, "
        "pretext, splits; fix or remove it.",
    ),
    "text for a number": ("train: {epochs: many}", "train.epochs is 'many', expected a whole number."),
    "fraction": ("train: {epochs: 2.5}", "train.epochs is 2.5, expected a whole number."),
    "truth for a number": ("seed: true", "seed is true, expected a whole number."),
    "not a number": ("train: {learning_rate: .nan}", "train.learning_rate is 'nan', expected a number."),
    "infinite": ("train: {learning_rate: .inf}", "train.learning_rate is 'inf', expected a number."),
    "null": ("train: {epochs: null}", "train.epochs is null, expected a whole number."),
    "empty section": ("train: null", "train is null, expected a mapping of keys."),
    "number for text": ("run: 2024", "run is 2024, expected text."),
    "mapping for a list": (
        "finetune: {tasks: {name: ring}}",
        "finetune.tasks is a mapping of name, expected a list.",
    ),
    "one of two types": (
        "zenodo: {record: newest}",
        "zenodo.record is 'newest', expected a whole number or null.",
    ),
    "too small": ("train: {batch_size: 0}", "train.batch_size is 0, expected 1 or more."),
    "too large": ("shards: {max_rejected: 1.5}", "shards.max_rejected is 1.5, expected 1 or less."),
    "a seed of 64 bits": (
        "seed: 9223372036854775808",
        "seed is 9223372036854775808, expected 9223372036854775807 or less.",
    ),
    "a seed with an exponent": ("seed: 1e30", "seed is 1000000000000000019884624838656, expected 9223372036"),
    "a negative seed": ("seed: -1", "seed is -1, expected 0 or more."),
    "not above": ("image: {crop: 0}", "image.crop is 0, expected more than 0."),
    "not below": ("train: {dropout: 1}", "train.dropout is 1, expected less than 1."),
    "not in the list": (
        "image: {encoding: tiff}",
        "image.encoding is 'tiff', expected one of png, jpeg, raw.",
    ),
    "slash in a name": (
        "run: a/b",
        "run is 'a/b', expected letters, digits, - and _, a letter or digit first.",
    ),
    "empty name": ("evaluate: {published: ''}", "evaluate.published is '', expected a name in config/publi"),
    "path for a name": ("evaluate: {published: ../x}", "evaluate.published is '../x', expected a name in "),
    "empty list": ("catalogs: []", "catalogs is [], expected at least 1 entry."),
    "query of a catalogue that runs a program": (
        f"{SIMULATE}\ncatalogs: [{{{CATALOG}, query: \"@pd.io.common.os.system('ls')\"}}]",
        "catalogs[0].query: '@pd.io.common.os.system' is not allowed in a query, expected",
    ),
    "repeated": (
        "train: {ensembles: [{name: metrics, splits: [train, train]}]}",
        'train.ensembles[0].splits is ["train", "train"], expected each entry only once.',
    ),
    "missing key": (
        "catalogs: [{name: a, tree: gz2}]",
        "catalogs[0].table is missing; add it (see config/README.md).",
    ),
    "unknown tree": (
        "catalogs: [{name: a, tree: gz3, table: gz_decals_volunteers_5.parquet}]",
        "catalogs[0].tree is 'gz3', but there is no file ",
    ),
    "two campaigns of which one is simulated": (
        f"{SIMULATE}\ncatalogs: [{{{CATALOG}}}, {{name: b, tree: rings, table: mine/votes.csv}}]",
        "catalogs have the trees gz_decals_5, rings, but zenodo.simulate simulates only one",
    ),
    "two catalogues of one name": (
        f"catalogs: [{{{CATALOG}}}, {{{CATALOG}}}]",
        "two entries of catalogs have the name 'a', expected different names; rename one.",
    ),
    "an export without a workflow": (
        f"catalogs: [{{{CATALOG}, zooniverse: {{versions: [1, 2]}}}}]",
        "catalogs[0].zooniverse.workflow is missing; add it (see config/README.md).",
    ),
    "a file of the record as an export": (
        f"catalogs: [{{{CATALOG}, zooniverse: {{workflow: 12}}}}]",
        "catalogs[0].table is 'gz_decals_volunteers_5.parquet', expected the path of an export of your"
        " Zooniverse project; write it with a slash",
    ),
    "versions of a workflow in the wrong order": (
        f"catalogs: [{{{EXPORT}, zooniverse: {{workflow: 1, versions: [3, 2]}}}}]",
        "catalogs[0].zooniverse.versions is [3, 2], expected the lowest version first; swap the two numbers.",
    ),
    "no subject export": (
        f"catalogs: [{{{EXPORT}, zooniverse: {{workflow: 1, subjects: mine/x}}}}]",
        "catalogs[0].zooniverse.subjects is 'mine/x', expected an existing subject export (CSV);"
        " fix the path.",
    ),
    "nothing to upload": (
        f"predict: {{manifest: 10, targets: [{TARGET}]}}",
        "predict.manifest is 10, but no target has galaxies to label: those of a split have votes, and",
    ),
    "two targets of one name": (
        f"predict: {{targets: [{TARGET}, {TARGET}]}}",
        "two entries of predict.targets and finetune.tasks have the name 'test'",
    ),
    "a task called like a target": (
        "finetune: {tasks: [{name: test, table: rings.csv, label: ring}]}",
        "two entries of predict.targets and finetune.tasks have the name 'test'",
    ),
    "shares above 1": (
        "split: {val: 0.2}",
        "the shares of split (train 0.7, val 0.2, test 0.2) add up to 1.1, expected exactly 1; fix them.",
    ),
    "an empty split": ("split: {train: 0.8, val: 0}", "split.val is 0, expected more than 0."),
    "shares of a task": (
        f"finetune: {{tasks: [{{{TASK}, split: {{train: 0.5}}}}]}}",
        "the shares of finetune.tasks[0].split (train 0.5, val 0.1, test 0.2) add up to 0.8",
    ),
    "no record": (
        "zenodo: {record: null}",
        "catalogs[0].table is 'gz_decals_volunteers_5.parquet', a file of a record, but zenodo.record is ",
    ),
    "two sources": (
        "zenodo: {sample: 5, simulate: {size: 64}}",
        "zenodo.sample and zenodo.simulate are both set, expected only one; set the other to null.",
    ),
    "no local folder": (
        "zenodo: {local: nowhere}",
        "zenodo.local is 'nowhere', expected an existing folder, or null to download the record; fix "
        "the path.",
    ),
    "local folder without a file": (
        f"zenodo: {{local: mine/record}}\nfinetune: {{tasks: [{{{TASK}}}]}}",
        "the folder zenodo.local ('mine/record') has no file 'rings.csv', but finetune.tasks[0].table needs",
    ),
    "a file that is not simulated": (
        f"{SIMULATE}\ncatalogs: [{{name: a, tree: gz_decals_5, table: votes.csv}}]",
        "catalogs[0].table is 'votes.csv', but the simulated record has no such file; choose one of "
        "gz_decals_",
    ),
    "sample of another table": (
        f"zenodo: {{sample: 5}}\nfinetune: {{tasks: [{{{TASK}}}]}}",
        "finetune.tasks[0].table is 'rings.csv', but zenodo.sample draws only from the first "
        "catalogue's table",
    ),
    "sample of no images": (
        f"zenodo: {{sample: 5}}\ncatalogs: [{{{CATALOG}}}]",
        "zenodo.sample reads images from the zips in catalogs[0].archives, but this list is empty; add "
        "the zips.",
    ),
    "no such table": (
        "catalogs: [{name: a, tree: gz2, table: ./nothing.csv}]",
        "catalogs[0].table is './nothing.csv', expected an existing table (CSV or Parquet); fix the ",
    ),
    "no such archive": (
        f"catalogs: [{{{CATALOG}, archives: [./nothing.zip]}}]",
        "catalogs[0].archives is './nothing.zip', expected an existing zip; fix the path.",
    ),
    "no such images": (
        f"catalogs: [{{{CATALOG}, images: mine/nothing}}]",
        "catalogs[0].images is 'mine/nothing', expected an existing folder of images; fix the path.",
    ),
    "archives and images": (
        f"catalogs: [{{{CATALOG}, images: mine/images, archives: [gz_decals_dr5_png_part1.zip]}}]",
        "catalogs[0] has both archives and images, expected only one; set images to null.",
    ),
    "warm-up without end": (
        "train: {epochs: 4, warmup_epochs: 4}",
        "train.warmup_epochs is 4, expected less than train.epochs (4); decrease it, or increase",
    ),
    "no such model": (
        "train: {start_from: mine/images}",
        "train.start_from is 'mine/images', expected a folder with model.keras and model.json; ",
    ),
    "no such model of a task": (
        f"finetune: {{tasks: [{{{TASK}, pretrained: mine/images}}]}}",
        "finetune.tasks[0].pretrained is 'mine/images', expected a model folder (a folder with model.keras",
    ),
    "two starts of a task": (
        f"finetune: {{tasks: [{{{TASK}, pretrained: mine/model, ensemble: metrics}}]}}",
        "finetune.tasks[0] has both ensemble and pretrained, expected only one; remove the other.",
    ),
    "unknown ensemble": (
        "predict: {targets: [{name: test, ensemble: best, split: test}]}",
        "predict.targets[0].ensemble is 'best', but there is no such ensemble; train.ensembles has "
        "metrics, catalog; choose one of these.",
    ),
    "unknown ensemble of a task": (
        f"finetune: {{tasks: [{{{TASK}, ensemble: best}}]}}",
        "finetune.tasks[0].ensemble is 'best', but there is no such ensemble; train.ensembles has "
        "metrics, catalog; choose one of these.",
    ),
    "target of nothing": (
        "predict: {targets: [{name: test, ensemble: metrics}]}",
        "predict.targets[0] ('test') needs one of split, catalog, images, archives, shards, found none; give",
    ),
    "target of two things": (
        "predict: {targets: [{name: test, ensemble: metrics, split: test, archives: all}]}",
        "predict.targets[0] ('test') needs one of split, catalog, images, archives, shards, found split and "
        "archives; give exactly one of them.",
    ),
    "names of a folder": (
        "predict: {targets: [{name: b, ensemble: metrics, images: mine/images, id: objid}]}\n"
        "evaluate: {target: null}",
        "predict.targets[0].id is 'objid', but images is a folder, expected 'name' (of the file) or 'path' ",
    ),
    "columns of a target without a table": (
        f"predict: {{targets: [{TARGET}, {{name: b, ensemble: metrics, images: mine/images, location: x}}]}}",
        "predict.targets[1].location is 'x', the name of a column, but this target has no catalog; remove",
    ),
    "target without archives": (
        "catalogs: [{name: a, tree: gz_decals_5, table: mine/votes.csv, images: mine/images}]",
        "predict.targets[1].archives is 'all', but no catalogue has archives; set predict.targets[1].images ",
    ),
    "target of no shards": (
        f"predict: {{targets: [{TARGET}, {{name: b, ensemble: metrics, shards: mine/images}}]}}",
        "predict.targets[1].shards is 'mine/images', expected a folder of shards with their .json sidecars",
    ),
    "evaluation of no target": (
        "evaluate: {target: tset}",
        "evaluate.target is 'tset', expected null or a target of predict.targets that has a split (test); "
        "fix the name, or set it to null.",
    ),
    "evaluation of no split": (
        "evaluate: {target: everything}",
        "evaluate.target is 'everything', expected null or a target of predict.targets that has a split ("
        "test); fix the name, or set it to null.",
    ),
    "evaluation on what was learned": (
        "predict: {targets: [{name: test, ensemble: catalog, split: test}]}",
        "evaluate.target is 'test', but the ensemble 'catalog' learns from the galaxies of this target "
        "(split test); choose a target of another split than train, test.",
    ),
    "the paper's acquisition for a tree without its question": (
        """
        catalogs: [{name: rings, tree: rings, table: mine/votes.csv, images: mine/images}]
        predict: {acquisition: paper, targets: [{name: test, ensemble: metrics, split: test}]}
        """,
        "predict.acquisition is paper, which is about votes for 'featured' in the first question, but the "
        "tree 'rings' begins with 'ring' (yes, no); choose joint.",
    ),
    "evaluation on what stopped the training": (
        "predict: {targets: [{name: test, ensemble: metrics, split: val}]}",
        "evaluate.target is 'test', a target of the split val, which decides when each training stops; "
        "choose a target of the split test.",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_configuration_is_one_message(case, check):
    overlay, expected = WRONG[case]
    with pytest.raises(UserError) as caught:
        check(textwrap.dedent(overlay))
    message = str(caught.value)
    assert message.startswith(f"Configuration: {expected}"), message
    assert "\n" not in message and message.endswith(".") and not re.search(r"\. [A-Z]", message)


def test_paths_that_the_run_makes_need_not_be_there(check):
    config, _ = check(
        "predict:\n  targets:\n    - {name: test, ensemble: metrics, split: test}\n"
        "    - {name: val, ensemble: metrics, catalog: results/gz_decals/catalog/val.parquet}\n"
    )
    assert config["predict"]["targets"][1]["name"] == "val"


def test_a_wrong_configuration_shows_its_message_and_no_traceback(repo, tmp_path):
    overlay = tmp_path / "wrong.yaml"
    overlay.write_text("train: {epocs: 3}\n")
    command = [sys.executable, "-m", "snakemake", "-n", "--quiet", "all", "--snakefile", repo / "Snakefile"]
    command += ["--directory", tmp_path / "run", "--cores", "1", "--configfile", overlay]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 1
    told = (ended.stdout + ended.stderr).strip().splitlines()
    assert told[-1].startswith("Configuration: unknown key 'epocs' in train (did you mean 'epochs'?)")
    assert not any("Traceback" in line or "Error" in line or "common.smk" in line for line in told)
    assert not list((tmp_path / "run").glob("results*"))
