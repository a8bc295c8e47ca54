"""The keys of a task: whether they fit together, and what follows from them."""

import sys

import pytest
import yaml
from snakemake.utils import update_config
from zoolib.config.labels import Label
from zoolib.config.schema import check_configuration
from zoolib.config.tasks import RESERVED, file_of_url, fit_names, task_labels
from zoolib.job.logs import UserError

SHA = "0123456789abcdef" * 4
URL = f"address: 'https://example.org/%s', sha256: {SHA}"


@pytest.fixture
def check(repo, tmp_path, monkeypatch):
    """Check a task of the configuration and give it back completed, with its labels."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine" / "by_class").mkdir(parents=True)
    for name in ("labels.csv", "by_class.zip"):
        (tmp_path / "mine" / name).touch()

    def run(task):
        config = yaml.safe_load((repo / "config/config.yaml").read_text())
        update_config(config, yaml.safe_load(f"finetune: {{tasks: [{{name: mine, {task}}}]}}"))
        check_configuration(config, repo / "workflow/schemas/config.schema.yaml", repo / "config/trees")
        task = config["finetune"]["tasks"][0]
        return task, task_labels(task, repo / "config/trees", "finetune.tasks[0]")

    return run


TABLE = "table: mine/labels.csv"


@pytest.mark.parametrize(
    ("task", "expected"),
    [
        (f"{TABLE}, label: ring", [Label("ring")]),
        (f"{TABLE}, labels: [{{name: ring}}, {{name: bar, kind: binary}}]", [Label("ring"), Label("bar")]),
        (f"{TABLE}, label: t, kind: multiclass, classes: [1, b]", [Label("t", "multiclass", ("1", "b"))]),
        (f"{TABLE}, label: m, kind: regression, bounds: [7, 12]", [Label("m", "regression", bounds=(7, 12))]),
        (f"{TABLE}, label: r, yes_above: 0.25, no_below: 5e-2", [Label("r", yes_above=0.25, no_below=0.05)]),
        (
            f"{TABLE}, labels: [{{name: ring}}, {{name: mass, kind: regression}}]",
            [Label("ring"), Label("mass", "regression")],
        ),
        ("folders: mine/by_class", [Label("mine", "multiclass")]),
        ("folders: mine/by_class.zip, label: shape", [Label("shape", "multiclass")]),
        (
            "folders: mine/by_class, kind: binary, classes: [E, S]",
            [Label("mine", "binary", ("E", "S"))],
        ),
        (f"url: {{{URL % 'bees.zip'}}}", [Label("mine", "multiclass")]),
        (f"url: {{{URL % 'rings.csv?download=1'}}}, label: ring", [Label("ring")]),
    ],
)
def test_labels_of_a_task(check, task, expected):
    _, labels = check(task)
    assert [Label.from_dict(label) for label in labels] == expected
    assert [label.to_dict().keys() for label in expected] == [label.keys() for label in labels]


def test_votes_stand_beside_other_labels(check):
    task = f"{TABLE}, labels: [{{name: bar_votes, kind: votes, tree: gz2}}, {{name: ring}}]"
    _, (votes, ring) = check(task)
    assert (votes["name"], votes["kind"], ring["tree"]) == ("bar_votes", "votes", None)
    label = Label.from_dict(votes)
    assert "bar_yes" in label.targets and label.tree.name == "gz2"


def test_votes_bring_their_tree(check):
    _, (label,) = check(f"{TABLE}, kind: votes, tree: gz2")
    label = Label.from_dict(label)
    assert (label.name, label.kind) == ("gz2", "votes") and label.targets == label.tree.columns
    assert label.tree.published


@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("label: ring", [""]),
        ("label: ring, folds: 3", ["fold0", "fold1", "fold2"]),
        (
            "label: ring, label_counts: [20, 50], label_count_seeds: 1",
            [
                "",
                "labels20-0-finetuned",
                "labels20-0-scratch",
                "labels50-0-finetuned",
                "labels50-0-scratch",
            ],
        ),
    ],
)
def test_trainings_of_a_task(check, task, names):
    assert fit_names(check(f"{TABLE}, {task}")[0]) == names


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("https://a.org/b/bees.zip", "bees.zip"),
        ("https://a.org/records/1/files/rings.csv.gz/content", "rings.csv.gz"),
        ("https://a.org/my%20rings.parquet?download=1", "my rings.parquet"),
        ("https://a.org/get?file=bees.zip", None),
    ],
)
def test_a_download_is_called_by_its_address(address, name):
    assert file_of_url({"address": address}) == name


WRONG = {
    "no source": (
        "label: ring",
        " ('mine') needs its labels from one of table, folders, url, found none; give exactly one",
    ),
    "two sources": (
        f"{TABLE}, folders: mine/by_class",
        " ('mine') needs its labels from one of table, folders, url, found table and fol",
    ),
    "no label": (TABLE, ".label is missing, expected the column of the table to learn; add it."),
    "both": (
        f"{TABLE}, label: a, labels: [{{name: b}}]",
        " has both label and labels, expected only one; move",
    ),
    "twice": (
        f"{TABLE}, labels: [{{name: b}}, {{name: b}}]",
        " has two labels called 'b', expected different",
    ),
    "aspect of labels": (
        f"{TABLE}, kind: binary, labels: [{{name: b}}]",
        " has both labels and kind, expected",
    ),
    "no such table": (
        "table: mine/none.csv, label: a",
        ".table is 'mine/none.csv', expected an existing table (CSV or",
    ),
    "no such folders": (
        "folders: mine/none",
        ".folders is 'mine/none', expected an existing folder, or a zip, with one folder",
    ),
    "folders and a group": (
        "folders: mine/by_class, group: field",
        " has both folders of classes, which hold the images, and group, which is only for tables; remove",
    ),
    "folders and images": (
        "folders: mine/by_class, images: mine",
        " has both folders of classes, which hold the images, and images",
    ),
    "folders of two labels": (
        "folders: mine/by_class, labels: [{name: a}, {name: b}]",
        " has 2 labels, but folders of classes",
    ),
    "address of what": (
        "url: {%s}, label: a" % (URL % "labels"),
        ".url.address is 'https://example.org/labels'",
    ),
    "no address": (
        f"url: {{address: 'ftp://a.org/x.csv', sha256: {SHA}}}, label: a",
        ".url.address is 'ftp://a.org/x.csv', expected an address that begins with https://.",
    ),
    "no checksum": (
        "url: {address: 'https://a.org/x.csv', sha256: abc}",
        ".url.sha256 is 'abc', expected 64",
    ),
    "votes without a tree": (f"{TABLE}, kind: votes", ".tree is null and its kind is votes, expected a tree"),
    "a tree without votes": (
        f"{TABLE}, label: a, tree: gz2",
        ".tree is gz2 and its kind is not given, expected",
    ),
    "no such tree": (f"{TABLE}, kind: votes, tree: gz77", ".tree is 'gz77', but there is no file"),
    "votes and a label": (
        f"{TABLE}, kind: votes, tree: gz2, label: a",
        ".kind is votes, so the tree names the",
    ),
    "votes among labels without a tree": (
        f"{TABLE}, labels: [{{name: b}}, {{name: a, kind: votes}}]",
        ".labels[1].tree is null and the label 'a' is votes, expected a tree with the kind votes, and with",
    ),
    "a tree of a label that is no votes": (
        f"{TABLE}, labels: [{{name: a, tree: gz2}}]",
        ".labels[0].tree is gz2 and the label 'a' is binary, expected a tree with",
    ),
    "votes of two trees": (
        f"{TABLE}, labels: [{{name: a, kind: votes, tree: gz2}}, {{name: b, kind: votes, tree: rings}}]",
        " has the votes 'a' and 'b', expected the votes of one tree at most; put all questions into one",
    ),
    "a label like a question": (
        f"{TABLE}, labels: [{{name: a, kind: votes, tree: gz2}}, {{name: bar}}]",
        ": no label can be called 'bar' here: it has a column 'bar', and the label 'a' has one of this",
    ),
    "unknown kind": (
        f"{TABLE}, label: a, kind: ordinal",
        ".kind is 'ordinal', expected one of binary, multiclass",
    ),
    "classes of a number": (
        f"{TABLE}, label: a, kind: regression, classes: [a, b]",
        ": the label 'a' is regression and has 2 classes, expected classes only for a multiclass label, "
        "or two",
    ),
    "one class": (f"{TABLE}, label: a, classes: [a]", '.classes is ["a"], expected at least 2 entries.'),
    "three of a binary": (
        f"{TABLE}, label: a, classes: [a, b, c]",
        ": the label 'a' is binary and has 3 classes",
    ),
    "bounds of a class": (
        f"{TABLE}, label: a, bounds: [0, 1]",
        ": the label 'a' is binary and has the bounds",
    ),
    "bounds upside down": (
        f"{TABLE}, label: a, kind: regression, bounds: [1, 0]",
        ": the label 'a' is regression and has the bounds [1, 0], expected [lowest, highest], only for a",
    ),
    "three bounds": (
        f"{TABLE}, label: a, bounds: [1, 2, 3]",
        ".bounds is [1, 2, 3], expected at most 2 entries.",
    ),
    "one threshold": (
        f"{TABLE}, label: a, yes_above: 0.5",
        ": the label 'a' is binary and has yes_above 0.5 and no_below null, expected both",
    ),
    "thresholds upside down": (
        f"{TABLE}, label: a, yes_above: 0.1, no_below: 0.5",
        ": the label 'a' is binary and has yes_above 0.1 and no_below 0.5, expected both or none, "
        "only for a binary",
    ),
    "balance of numbers": (
        f"{TABLE}, label: a, kind: regression, balance: repeat",
        ".balance is repeat, which works only for the classes of a single binary or multiclass label; set",
    ),
    "balance of two": (
        f"{TABLE}, labels: [{{name: a}}, {{name: b}}], balance: weights",
        ".balance is weights, which works only for the",
    ),
    "several in label": (
        f"{TABLE}, label: [a, b]",
        '.label is ["a", "b"], expected the name of one column (several',
    ),
    "unknown of a task": (
        f"{TABLE}, label: a, kinds: binary",
        "unknown key 'kinds' in finetune.tasks[0] (did",
    ),
    "unknown of a label": (
        f"{TABLE}, labels: [{{name: a, bound: 1}}]",
        "unknown key 'bound' in finetune.ta",
    ),
    "wrong and unknown": (
        f"{TABLE}, label: a, kind: 3, kinds: 3",
        "unknown key 'kinds' in finetune.tasks[0]",
    ),
    "folds and split": (
        f"{TABLE}, label: a, folds: 5, split: part",
        " has both folds and split, expected only one;",
    ),
    "folds and shares": (
        f"{TABLE}, label: a, folds: 5, split: {{}}",
        " has both folds and split, expected only one;",
    ),
    "folds and counts": (
        f"{TABLE}, label: a, folds: 5, label_counts: [9]",
        " has both folds and label_counts, b",
    ),
    "two folds": (f"{TABLE}, label: a, folds: 2", ".folds is 2, expected 3 or more."),
    "column of folders": (
        "folders: mine/by_class, split: part",
        ".split is 'part', the name of a column, but the",
    ),
    "shares": (
        f"{TABLE}, label: a, split: {{train: 0.5}}",
        "the shares of finetune.tasks[0].split (train 0.5, ",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_task_that_does_not_agree_is_one_message(check, case):
    task, expected = WRONG[case]
    with pytest.raises(UserError) as caught:
        check(task)
    message = str(caught.value)
    where = "" if expected.startswith(("the shares", "unknown key")) else "finetune.tasks[0]"
    assert message.startswith(f"Configuration: {where}{expected}"), message
    assert "\n" not in message and message.endswith(".")


@pytest.mark.parametrize("name", RESERVED)
def test_no_label_is_called_like_a_column_of_catalogues(check, name):
    with pytest.raises(UserError, match=f"no label can be called '{name}'"):
        check(f"{TABLE}, label: {name}")


def test_a_task_does_not_overwrite_the_model_that_it_starts_from(check, tmp_path):
    folder = tmp_path / "results/gz_decals/finetune/mine"
    folder.mkdir(parents=True)
    for name in ("model.keras", "model.json"):
        (folder / name).touch()
    for model in ("results/gz_decals/finetune/mine", folder):
        with pytest.raises(UserError, match="but this task writes its own model there"):
            check(f"{TABLE}, label: ring, pretrained: {model}")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return []", "expected one or more"),
        ("return blocks[99]", "cannot plan its stages .IndexError"),
        ("return [Stage('top', (), 0, 0.1, None)]", "planned a stage of 0 epochs, expected 1 or more"),
    ],
)
def test_a_strategy_of_ones_own_that_plans_nothing(check, tmp_path, monkeypatch, body, message):
    (tmp_path / "own_strategies.py").write_text(
        "from zoolib.config.strategies import Stage, Strategy\n"
        f"class Odd(Strategy):\n    def stages(self, blocks, task):\n        {body}\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "own_strategies", raising=False)
    with pytest.raises(UserError, match=message):
        check(f"{TABLE}, label: ring, strategy: own_strategies.Odd")
