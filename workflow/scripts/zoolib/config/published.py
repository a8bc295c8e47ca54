"""Published numbers: a paper's results, to compare with a run, and the expected counts of a record's rows."""

from pathlib import Path

import yaml

from zoolib.config.agreement import is_path
from zoolib.job.logs import UserError

SCORES = ("accuracy", "precision", "recall", "f1")
# The halves of table 1, and their titles.
SUBSETS = {"all": "All relevant galaxies", "confident": "Galaxies with confident volunteers"}
# Keys of the section evaluate that say which galaxies are scored.
RULES = ("min_votes", "confident")
# Values of evaluate.relevant: the rules by which a question counts for a galaxy, the default first.
RELEVANCE = ("product", "asked")


def read_published(name, folder):
    """Read the published numbers that a run is compared with.

    Args:
        name: the name of a file in the folder, without its suffix, such as `walmsley_2022`.
        folder: `config/published`.

    Returns:
        {"title", "source", "tree", "record", "rules": {"min_votes", "confident" and perhaps "relevant"},
        "table_1": {subset: {question: {"count" and each score}}}, "figures": {figure: its numbers}, and
        perhaps "not_comparable": {question: why}}.

    Raises:
        UserError: there is no such file, or a key in it is missing or wrong.
    """
    path = Path(folder) / f"{name}.yaml"
    if not path.is_file():
        raise UserError(
            f"Configuration: evaluate.published is '{name}', but there is no file {path}; fix the name, or"
            " set it to null for no comparison."
        )
    content = _mapping(path)
    try:
        for subset in SUBSETS:
            for row in content["table_1"][subset].values():
                [float(row[key]) for key in ("count", *SCORES)]
        [float(content["rules"][key]) for key in RULES]
        [content[key] for key in ("title", "tree", "record", "figures")]
        [str(content["table_1"]["all"][question]) for question in content.get("not_comparable", {})]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(
            f"{path}: a key is missing or wrong ({error!r}), expected title, tree, record, figures, rules"
            f" with {' and '.join(RULES)}, and for each question under table_1.all and table_1.confident"
            f" count, {', '.join(SCORES)}; fix the file."
        ) from None
    return content


def other_galaxies(published, config):
    """Say why a run's galaxies are not those of the published numbers.

    Args:
        published: from `read_published`.
        config: the configuration, with its defaults.

    Returns:
        A sentence for the report; empty if the configuration shows no difference.
    """
    zenodo = config["zenodo"]
    if zenodo["simulate"]:
        return (
            "The galaxies and the volunteers of this run are simulated: this table shows that the comparison"
            " works, but it says nothing about the models."
        )
    if any(is_path(entry["table"]) for entry in config["catalogs"]):
        return (
            "The votes of this run are not from the paper's record: the two tables are about different"
            " galaxies."
        )
    if zenodo["record"] != published["record"]:
        return (
            f"The votes of this run are from record {zenodo['record']}, those of the paper from record"
            f" {published['record']}: the two tables are about different galaxies."
        )
    if zenodo["sample"]:
        return (
            f"This run has a sample of {zenodo['sample']:,} galaxies, and its models learned from a part of"
            " them; the paper's models learned from nearly 200,000."
        )
    return ""


def changed_rules(published, evaluate, catalogs):
    """Say by which rules the galaxies of a run's scores differ from those of the published scores.

    Args:
        published: as `read_published` gives it.
        evaluate: the section of the configuration, with `min_votes`, `confident` and `relevant`.
        catalogs: entries of the configuration, each with `name` and `query`.

    Returns:
        A sentence for the report; empty if the rules are the same.
    """
    rules = published["rules"]
    changes = [
        f"evaluate.{key} is {evaluate[key]} (published: {rules[key]})"
        for key in (*RULES, "relevant")
        if key in rules and evaluate[key] != rules[key]
    ]
    changes += [
        f"catalogue '{entry['name']}' has only galaxies with {entry['query']}"
        for entry in catalogs
        if entry["query"]
    ]
    if not changes:
        return ""
    return f"The galaxies of this run's scores were chosen by other rules: {'; '.join(changes)}."


def read_checks(path):
    """Read the expected counts of a record's tables.

    Args:
        path: YAML such as `config/published/zenodo_4573248.yaml`, with the key `checks`.

    Returns:
        ({name: file of the record}, [{"what", "table", perhaps "where", "expected"}]).

    Raises:
        UserError: there is no such file, it has no checks, or a check is wrong.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(
            f"{path}: there is no such file with the expected counts of the record; set zenodo.record to a"
            " record that has one, or write one like zenodo_4573248.yaml in the same folder."
        )
    checks = _mapping(path).get("checks") or {}
    tables, counts = (checks.get(key) if isinstance(checks, dict) else None for key in ("tables", "counts"))
    if not isinstance(tables, dict) or not isinstance(counts, list) or not counts:
        raise UserError(
            f"{path}: expected checks.tables, a mapping, and checks.counts, a list of checks; fix the file."
        )
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
            f"{where} is {check!r}, expected the keys what, table and expected, and where if only some rows"
            " count; fix the file."
        )
    if check["table"] not in tables:
        raise UserError(
            f"{where}.table is '{check['table']}', expected one of checks.tables: {', '.join(tables)}; fix"
            " the name."
        )
