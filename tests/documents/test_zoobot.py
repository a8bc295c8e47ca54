"""docs/zoobot.md: everything that it says to type instead of Zoobot's and Flash's words exists here."""

import pydoc
import re
import shlex

import jsonschema
import pytest
import reference_commands
import reference_files
import reference_rules
import yaml
from pipeline import REPO
from zoolib.config.augmentations import STEPS
from zoolib.config.schema import known_keys
from zoolib.config.strategies import find_strategy
from zoolib.quick import finetune, predict

PAGE = (REPO / "docs/zoobot.md").read_text()
SCHEMA = yaml.safe_load((REPO / "workflow/schemas/config.schema.yaml").read_text())
KEYS = known_keys(SCHEMA)
RULES = reference_rules.read_rules(REPO)
QUICK = {"make finetune": finetune.KEYS, "make predict": predict.KEYS}


def rows():
    """(what Zoobot or Flash calls it, what to type here) of all tables but the last, which compares both."""
    tables, _, _ = PAGE.partition("\n## What differs\n")
    found = [line.strip("| ").split(" | ") for line in tables.splitlines() if line.startswith("| ")]
    return [row for row in found if row[1] != "here" and not row[0].startswith("---")]


def words():
    """Every text in backticks of the right column."""
    return sorted({word for _, here in rows() for word in re.findall(r"`([^`]+)`", here)})


def is_key(word):
    """Whether it is a key of the configuration, with a value that the schema allows if there is one."""
    key, _, text = word.partition(": ")
    if key not in KEYS:
        return False
    value = yaml.safe_load(text)
    if text:
        jsonschema.Draft202012Validator({**KEYS[key], "$defs": SCHEMA["$defs"]}).validate(value)
    if text and key.endswith(".strategy"):
        task = {"epochs": 80, "patience": 20, "learning_rate": 0.001}
        assert find_strategy(value).stages([["a"], ["b"], ["c"]], task)
    return True


def is_command(word):
    """Whether it is a command with a target that exists, settings that it knows and files that are there."""
    command, *given = shlex.split(word)
    if command == "make":
        target, *settings = given
        known = QUICK[f"make {target}"] if settings else ()
        assert {setting.partition("=")[0] for setting in settings} <= set(known), word
        return target in reference_commands.targets(REPO / "Makefile")
    names = {rule.name for rule in RULES}
    if "--configfile" in given:
        return (REPO / given[given.index("--configfile") + 1]).is_file()
    if "--profile" in given:
        return (REPO / "profiles" / given[given.index("--profile") + 1]).is_dir()
    given = [word.partition("=")[0] for word in given if not word.startswith("--")]
    return command == "snakemake" and set(given) <= names


def files():
    """Paths that a run has: outputs of rules, and those of tables."""
    outputs = {reference_rules.in_braces(path) for rule in RULES for path in rule.outputs}
    return outputs | {f"results/{{run}}/{path}" for path in reference_files.tables(REPO)}


def found_as(word):
    """What a text of the right column is; None if it is nothing that exists."""
    columns = {name for table in reference_files.tables(REPO).values() for name in table}
    kinds = {
        "a key": lambda: is_key(word),
        "a command": lambda: word.startswith(("make ", "snakemake")) and is_command(word),
        "a function": lambda: word.startswith("zoolib.") and callable(pydoc.locate(word)),
        "a file of a run": lambda: word in files(),
        "a file of the repository": lambda: "/" in word and (REPO / word).is_file(),
        "a column": lambda: word in columns,
        "a step of an augmentation": lambda: word in STEPS,
    }
    return next((kind for kind, holds in kinds.items() if holds()), None)


def test_the_page_has_the_promises_of_each_program():
    there = " ".join(row[0] for row in rows())
    # One of each group: scripts, options, functions, classes, strategies.
    promised = ["create_shards.py", "train_model.py", "make_predictions.py", "finetune_minimal.py"]
    promised += ["finetune_advanced.py", "--eval-size", "--resize-size", "--distributed", "--wandb"]
    promised += ["get_run_config", "load_model", "PreprocessingConfig", "n_samples", "FinetuneableZoobotTree"]
    promised += ["training_mode", "lr_decay", "ZoobotEncoder", "GalaxyViewTransform", "UnfreezeMilestones"]
    promised += ["FlashBaseFinetuning", "from_folders", "load_from_checkpoint", "freeze_unfreeze"]
    assert [name for name in promised if name not in PAGE.partition("## What differs")[0]] == []
    assert len(rows()) > 150 and len(there) > 5000
    assert all(here.strip() for _, here in rows())


@pytest.mark.parametrize("word", words())
def test_what_the_page_says_to_type_exists(word):
    assert found_as(word), f"`{word}` is no key, command, function, file or column"


def test_a_word_that_does_not_exist_is_found():
    wrong = ["train.epoch", "make finetun", "zoolib.api.finetun", "snakemake shard", "config/none.yaml"]
    assert [word for word in wrong if found_as(word)] == []
    with pytest.raises(jsonschema.ValidationError):
        found_as("train.schedule: linear")
    with pytest.raises(AssertionError):
        found_as("make predict FOLDER=mine")
