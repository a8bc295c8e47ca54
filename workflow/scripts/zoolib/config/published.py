"""Published numbers: what a paper reports, to compare with, and what a record's tables should count."""

from pathlib import Path

import yaml

from zoolib.config.agreement import is_path
from zoolib.job.logs import UserError

SCORES = ("accuracy", "precision", "recall", "f1")
SUBSETS = ("all", "confident")
# Keys of the section evaluate that say which galaxies are scored.
RULES = ("min_votes", "confident")


def read_published(name, folder):
    """Read the published numbers that a run is compared with.

    Args:
        name: of a file in the folder, such as `walmsley_2022`.
        folder: `config/published`.

    Returns:
        {"title", "source", "tree", "record", "rules": {"min_votes", "confident"},
        "table_1": {subset: {question: {"count" and each score}}}, "figures": {figure: its numbers}}.

    Raises:
        UserError: no such file, or something is missing in it.
    """
    path = Path(folder) / f"{name}.yaml"
    if not path.is_file():
        raise UserError(
            f"Configuration: evaluate.published is '{name}', but there is no file {path}; set it to null to"
            " compare with nothing."
        )
    content = _mapping(path)
    try:
        for subset in SUBSETS:
            for row in content["table_1"][subset].values():
                [float(row[key]) for key in ("count", *SCORES)]
        [float(content["rules"][key]) for key in RULES]
        [content[key] for key in ("title", "tree", "record", "figures")]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path}: is not understood ({error!r}); expected title, tree, record, figures, rules with"
            f" {' and '.join(RULES)}, and under table_1.all and table_1.confident for each question"
            f" count, {', '.join(SCORES)}."
        ) from None
    return content


def other_galaxies(published, config):
    """What sets a run's galaxies apart from the published ones.

    Args:
        published: from `read_published`.
        config: the configuration, with its defaults.

    Returns:
        A sentence; empty where nothing does.
    """
    zenodo = config["zenodo"]
    if zenodo["simulate"]:
        return (
            "Simulated galaxies and simulated volunteers are not the paper's: this table shows that the"
            " comparison works, and says nothing about the models."
        )
    if any(is_path(entry["table"]) for entry in config["catalogs"]):
        return (
            "The votes of this run are not those of the paper's record: the two tables are of other galaxies."
        )
    if zenodo["record"] != published["record"]:
        return (
            f"The votes of this run are those of record {zenodo['record']}, the paper's of record"
            f" {published['record']}: the two tables are of other galaxies."
        )
    if zenodo["sample"]:
        return (
            f"This run has a sample of {zenodo['sample']:,} galaxies, of which its models learned from a"
            " part; the paper's learned from nearly 200,000."
        )
    return ""


def changed_rules(published, evaluate, catalogs):
    """Say which rules of a run choose other galaxies for its scores than the published ones do.

    Args:
        published: as `read_published` gives it.
        evaluate: the section of the configuration, with `min_votes` and `confident`.
        catalogs: entries of the configuration, each with `name` and `query`.

    Returns:
        A sentence; empty where the rules are the same.
    """
    rules = published["rules"]
    changes = [
        f"evaluate.{key} is {evaluate[key]} (published: {rules[key]})"
        for key in RULES
        if evaluate[key] != rules[key]
    ]
    changes += [
        f"catalogue '{entry['name']}' has only galaxies with {entry['query']}"
        for entry in catalogs
        if entry["query"]
    ]
    if not changes:
        return ""
    return f"The scores of this run are of galaxies chosen by other rules: {'; '.join(changes)}."


def read_checks(path):
    """Read what a record's tables should count.

    Args:
        path: YAML such as `config/published/zenodo_4573248.yaml`, with the key `checks`.

    Returns:
        ({name: file of the record}, [{"what", "table", perhaps "where", "expected"}]).

    Raises:
        UserError: no such file, no checks in it, or a check that is none.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"{path}: there is no such file, so nothing says what the record should count; set"
            " zenodo.record to a record that has one, or write one like zenodo_4573248.yaml beside it."
        )
    checks = _mapping(path).get("checks") or {}
    tables, counts = (checks.get(key) if isinstance(checks, dict) else None for key in ("tables", "counts"))
    if not isinstance(tables, dict) or not isinstance(counts, list) or not counts:
        raise UserError(f"{path}: expected checks.tables, a mapping, and checks.counts, a list of checks.")
    for number, check in enumerate(counts):
        _check_form(check, tables, f"{path}: checks.counts[{number}]")
    return tables, counts


def _mapping(path):
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: is not valid YAML ({' '.join(str(error).split())}); fix it.") from None
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected a mapping of keys, found {content!r}; fix the file.")
    return content


def _check_form(check, tables, where):
    needed = {"what", "table", "expected"}
    if not isinstance(check, dict) or not needed <= set(check) <= needed | {"where"}:
        raise UserError(
            f"{where} is {check!r}, expected what, table, expected, and where if rows are to be chosen."
        )
    if check["table"] not in tables:
        raise UserError(
            f"{where} counts in '{check['table']}', which checks.tables does not have: {', '.join(tables)}."
        )
