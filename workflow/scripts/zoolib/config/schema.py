"""Check the configuration of a run against its schema, fill in defaults, and explain errors to the user."""

import copy
import difflib
import json
import math
import re
from pathlib import Path

import jsonschema
import yaml

from zoolib.config.agreement import check_agreement, wrong
from zoolib.config.starts import check_starts, complete_image
from zoolib.config.targets import check_targets
from zoolib.config.tasks import check_tasks

# YAML 1.1 reads 1e-3 as text, because it has no decimal point.
EXPONENT = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)[eE][+-]?\d+")
# Validators that fail if a mapping has a key that the schema does not know.
UNKNOWN = ("additionalProperties", "unevaluatedProperties")
WORDS = {
    "object": "a mapping of keys",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}


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
    # Each job reads it, and PyYAML without C needs a quarter of a second.
    schema = yaml.load(Path(schema_path).read_text(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    try:
        completed = _complete(config, schema, schema)
    except RecursionError:
        raise wrong(
            "a part of it refers to itself (a YAML alias '*name' inside of what '&name' marks), or is nested"
            " too deeply; expected lists and mappings that end; remove the alias"
        ) from None
    found = jsonschema.Draft202012Validator(schema).iter_errors(completed)
    # A known key with a wrong value counts as unevaluated, too, but its own error says more.
    errors = [error for error in found if error.validator not in UNKNOWN or _unknown_keys(error, schema)]
    if errors:
        # The outermost error; at the same depth, a misspelt key rather than the key that is then missing.
        first = min(errors, key=lambda error: (len(error.path), error.validator not in UNKNOWN))
        raise wrong(_message(first, schema))
    trees = check_agreement(completed, trees_folder)
    check_targets(completed)
    check_tasks(completed["finetune"]["tasks"], trees_folder)
    check_starts(completed)
    completed["image"] = complete_image(completed)
    config.clear()
    config.update(completed)
    return trees


def known_keys(schema):
    """All keys that a schema knows, at any depth.

    Args:
        schema: a JSON schema as plain values.

    Returns:
        {key, written as `train.epochs` or `catalogs[].name`: its schema}.
    """
    found = {}

    def walk(entry, path):
        for name, inner in entry.get("properties", {}).items():
            inner = _resolved(inner, schema)
            key = f"{path}.{name}" if path else name
            found[key] = inner
            walk(inner, key)
            walk(_resolved(inner.get("items", {}), schema), f"{key}[]")

    walk(schema, "")
    return found


def _resolved(schema, root):
    """A schema joined with the definition that its `$ref` names; its own keys win and come first."""
    if "$ref" not in schema:
        return schema
    named = root["$defs"][schema["$ref"].rsplit("/", 1)[1]]
    merged = {**named, **schema}
    if "properties" in named:
        merged["properties"] = {**schema.get("properties", {}), **named["properties"]}
    return merged


def _complete(value, schema, root):
    """A copy with the schema's defaults, and with each number in the right type, if YAML read another one."""
    schema = _resolved(schema, root)
    kinds = schema.get("type", [])
    if isinstance(value, dict):
        known = schema.get("properties", {})
        value = {str(key): entry for key, entry in value.items()}
        for key, entry in known.items():
            if key not in value and "default" in entry:
                value[key] = copy.deepcopy(entry["default"])
        # In the schema's order: Snakemake compares texts, so another order of keys would look like a change.
        value = {key: value[key] for key in sorted(value, key=[*known, *value].index)}
        return {key: _complete(entry, known.get(key, {}), root) for key, entry in value.items()}
    if isinstance(value, list):
        return [_complete(entry, schema.get("items", {}), root) for entry in value]
    if isinstance(value, str) and "string" not in kinds and EXPONENT.fullmatch(value):
        value = float(value)
    if isinstance(value, float) and not math.isfinite(value):
        # No limit stops a NaN; as text, it has the wrong type for every number.
        return str(value)
    if isinstance(value, float) and "integer" in kinds and value.is_integer():
        return int(value)
    return value


def _key(path):
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text


def _found(value):
    if isinstance(value, dict):
        return f"a mapping of {', '.join(map(str, value)) or 'nothing'}"
    if isinstance(value, str):
        return f"'{value}'"
    return json.dumps(value, default=str, ensure_ascii=False)


def _message(error, schema):
    where, limit = _key(error.absolute_path), error.validator_value
    if error.validator in UNKNOWN:
        return _unknown_key(where, error, schema)
    if error.validator == "required":
        missing = next(key for key in limit if key not in error.instance)
        return f"{where + '.' if where else ''}{missing} is missing; add it (see config/README.md)."
    if error.validator == "type":
        kinds = [limit] if isinstance(limit, str) else limit
        words = " or ".join(WORDS[kind] for kind in kinds)
        # The description of a section is about its keys, that of a pattern about the letters.
        says_more = "string" in kinds and "pattern" not in error.schema
        rule = f"expected {error.schema.get('description', words) if says_more else words}"
    elif error.validator == "enum":
        rule = f"expected {'one of ' if len(limit) > 1 else ''}{', '.join(map(str, limit))}"
    elif error.validator == "pattern":
        rule = f"expected {error.schema.get('description', limit)}"
    else:
        rules = {
            "minimum": f"expected {limit} or more",
            "maximum": f"expected {limit} or less",
            "exclusiveMinimum": f"expected more than {limit}",
            "exclusiveMaximum": f"expected less than {limit}",
            "minItems": f"expected at least {limit} {'entry' if limit == 1 else 'entries'}",
            "maxItems": f"expected at most {limit} entries",
            "uniqueItems": "expected each entry only once",
        }
        rule = rules.get(error.validator, error.message)
    return f"{where or 'it'} is {_found(error.instance)}, {rule}."


def _unknown_keys(error, schema):
    return sorted(set(error.instance) - set(_resolved(error.schema, schema)["properties"]))


def _unknown_key(where, error, schema):
    allowed = sorted(_resolved(error.schema, schema)["properties"])
    unknown = _unknown_keys(error, schema)[0]
    near = difflib.get_close_matches(unknown, allowed, n=1)
    elsewhere = [key for key in known_keys(schema) if key.rsplit(".", 1)[-1] == unknown]
    hint = f" (did you mean '{near[0]}'?)" if near else ""
    if not near and elsewhere:
        hint = f" (it exists as {' and '.join(elsewhere[:2])})"
    inside = f"in {where}" if where else "at the top level"
    return f"unknown key '{unknown}' {inside}{hint}, expected one of {', '.join(allowed)}; fix or remove it."
