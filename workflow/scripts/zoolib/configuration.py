"""The configuration of a run: checked against its schema, with defaults, and errors in sentences."""

import difflib
import re
from pathlib import Path

import jsonschema
import yaml

from zoolib.logs import UserError
from zoolib.trees import DecisionTree

# YAML 1.1 reads 1e-3 as text, for want of a point.
EXPONENT = re.compile(r"[+-]?\d+(\.\d*)?[eE][+-]?\d+")


def check_configuration(config, schema_path, trees_folder):
    """Check a configuration, fill in its defaults and load its trees.

    Args:
        config: the content of the YAML files; it is completed in place.
        schema_path: the JSON schema (as YAML).
        trees_folder: where a tree is looked up by name.

    Returns:
        {name of a catalogue: its `DecisionTree`}.

    Raises:
        UserError: names the key, what was found and what is allowed.
    """
    schema = yaml.safe_load(Path(schema_path).read_text())
    completed = _numbers(config)
    _fill(completed, schema, schema)
    errors = sorted(jsonschema.Draft202012Validator(schema).iter_errors(completed), key=lambda e: len(e.path))
    if errors:
        raise UserError(_sentence(errors[0]))
    _check_names(completed)
    _check_source(completed["zenodo"], completed)
    _check_targets(completed)
    config.clear()
    config.update(completed)
    return {entry["name"]: load_tree(entry["tree"], trees_folder) for entry in config["catalogs"]}


def load_tree(name, trees_folder):
    """Load a tree by its name in `config/trees/`, or by the path of a YAML file.

    Args:
        name: e.g. `gz2` or `my_survey/tree.yaml`.
        trees_folder: where a tree is looked up by name.

    Returns:
        The `DecisionTree`.

    Raises:
        UserError: no such tree, or not a tree.
    """
    is_path = "/" in name or name.endswith((".yaml", ".yml"))
    return DecisionTree.load(name if is_path else Path(trees_folder) / f"{name}.yaml")


def _numbers(value):
    """A copy in which text such as 1e-3 is the number that its writer meant."""
    if isinstance(value, dict):
        return {str(key): _numbers(entry) for key, entry in value.items()}
    if isinstance(value, list):
        return [_numbers(entry) for entry in value]
    if isinstance(value, str) and EXPONENT.fullmatch(value):
        return float(value)
    return value


def _fill(value, schema, root):
    """Fill the schema's defaults into the mappings of a configuration, however deep."""
    if "$ref" in schema:
        schema = {**root["$defs"][schema["$ref"].rsplit("/", 1)[1]], **schema}
    if isinstance(value, dict):
        for key, entry in schema.get("properties", {}).items():
            if key not in value and "default" in entry:
                default = entry["default"]
                value[key] = type(default)(default) if isinstance(default, (dict, list)) else default
            if key in value:
                _fill(value[key], entry, root)
    elif isinstance(value, list):
        for entry in value:
            _fill(entry, schema.get("items", {}), root)


def _key(path):
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _sentence(error):
    where, found = _key(error.absolute_path), error.instance
    if error.validator == "additionalProperties":
        allowed = sorted(error.schema["properties"])
        unknown = sorted(set(found) - set(allowed))[0]
        near = difflib.get_close_matches(unknown, allowed, n=1)
        hint = f" (did you mean '{near[0]}'?)" if near else ""
        inside = f"in {where}" if where else "at the top level"
        return f"Configuration: unknown key '{unknown}' {inside}{hint}; allowed are {', '.join(allowed)}."
    if error.validator == "required":
        missing = next(key for key in error.validator_value if key not in found)
        return f"Configuration: {where + '.' if where else ''}{missing} is missing; see config/README.md."
    rules = {
        "type": lambda limit: f"expected {limit if isinstance(limit, str) else ' or '.join(limit)}",
        "enum": lambda limit: f"allowed are {', '.join(map(str, limit))}",
        "minimum": lambda limit: f"expected {limit} or more",
        "maximum": lambda limit: f"expected {limit} or less",
        "exclusiveMinimum": lambda limit: f"expected more than {limit}",
        "exclusiveMaximum": lambda limit: f"expected less than {limit}",
        "minItems": lambda limit: f"expected at least {limit} entry",
        "pattern": lambda limit: f"expected {error.schema.get('description', limit)}",
    }
    rule = rules.get(error.validator)
    return f"Configuration: {where} is {found!r}, {rule(error.validator_value) if rule else error.message}."


def _check_names(config):
    lists = {
        "catalogs": config["catalogs"],
        "train.ensembles": config["train"]["ensembles"],
        "predict.targets and finetune.tasks": config["predict"]["targets"] + config["finetune"]["tasks"],
    }
    for where, entries in lists.items():
        names = [entry["name"] for entry in entries]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise UserError(f"Configuration: two entries of {where} are called '{twice[0]}'; rename one.")
    shares = config["split"]
    if sum(shares.values()) > 1 + 1e-9:
        raise UserError(
            f"Configuration: the shares of split add up to {sum(shares.values()):g}, expected 1 or less."
        )


def _check_source(zenodo, config):
    given = [key for key in ("local", "sample", "simulate") if zenodo[key]]
    if len(given) > 1:
        raise UserError(
            f"Configuration: zenodo.{given[0]} and zenodo.{given[1]} exclude each other; set one to null."
        )
    names = [entry["table"] for entry in config["catalogs"] + config["finetune"]["tasks"]]
    names += [name for entry in config["catalogs"] for name in entry["archives"]]
    of_record = [name for name in names if "/" not in name]
    if of_record and not (zenodo["record"] or zenodo["local"] or zenodo["simulate"]):
        raise UserError(
            f"Configuration: '{of_record[0]}' is a file of a record, but zenodo.record is null; name one,"
            f" or write a path with a slash ('./{of_record[0]}') for a file on disk."
        )
    if zenodo["local"]:
        for name in of_record:
            if not (Path(zenodo["local"]) / name).is_file():
                raise UserError(
                    f"Configuration: the folder zenodo.local ({zenodo['local']}) has no file '{name}'; copy"
                    " it there, or set zenodo.local to null to download it."
                )


def _check_targets(config):
    ensembles = [entry["name"] for entry in config["train"]["ensembles"]]
    wanted = [("predict.targets", entry) for entry in config["predict"]["targets"]]
    wanted += [("finetune.tasks", entry) for entry in config["finetune"]["tasks"] if entry["ensemble"]]
    for where, entry in wanted:
        if entry["ensemble"] not in ensembles:
            raise UserError(
                f"Configuration: {where}, '{entry['name']}': there is no ensemble '{entry['ensemble']}';"
                f" train.ensembles has {', '.join(ensembles)}."
            )
    kinds = ("split", "catalog", "images", "archives", "shards")
    for entry in config["predict"]["targets"]:
        given = [kind for kind in kinds if kind in entry]
        if len(given) != 1:
            raise UserError(
                f"Configuration: predict.targets, '{entry['name']}' needs exactly one of"
                f" {', '.join(kinds)}, found {', '.join(given) or 'none'}."
            )
    target = config["evaluate"]["target"]
    splits = [entry["name"] for entry in config["predict"]["targets"] if entry.get("split")]
    if target not in splits:
        raise UserError(
            f"Configuration: evaluate.target is '{target}', expected a target of a split; predict.targets"
            f" has {', '.join(splits) or 'none'}."
        )
