"""The page of all keys of the configuration, from the schema and the tables of config/README.md."""

import json
import re

import yaml
from zoolib.config.schema import WORDS, known_keys

HEAD = """# Every key

From `workflow/schemas/config.schema.yaml`, which checks every configuration. *Default* is the value in
`config/config.yaml`; for entries of a list, the value if the key is left out.
[config/README.md](../config/README.md) groups the keys, and explains lists, mappings and paths.
`catalogs[].name` is the key `name` of each entry of the list `catalogs`.
"""
LIMITS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "minItems": "at least {} entries",
    "maxItems": "at most {} entries",
}


def explained(repo):
    """{key: (default, what it does)} of the tables of config/README.md."""
    text = (repo / "config/README.md").read_text()
    rows = re.findall(r"^\| `([^`]+)` \| ([^|]+) \| ([^|]+) \|$", text, re.M)
    return {key: (default.strip(), what.strip()) for key, default, what in rows}


def kind(entry):
    """The type of a key in words, such as "a whole number or null"."""
    if "enum" in entry:
        return "one of " + ", ".join(f"`{json.dumps(value).strip(chr(34))}`" for value in entry["enum"])
    types = entry.get("type", "object")
    return " or ".join(WORDS[name] for name in ([types] if isinstance(types, str) else types))


def limits(entry):
    """What a value must also fulfil, in words."""
    found = [text.format(entry[name]) for name, text in LIMITS.items() if name in entry]
    if entry.get("uniqueItems"):
        found.append("no entry twice")
    if "items" in entry and "properties" not in entry["items"]:
        found.append(f"each entry: {', '.join(filter(None, [kind(entry['items']), limits(entry['items'])]))}")
    return "; ".join([*found, *([entry["description"]] if "description" in entry else [])])


def page(repo):
    """The page as Markdown: one table for each section of the configuration."""
    schema = yaml.safe_load((repo / "workflow/schemas/config.schema.yaml").read_text())
    told, lines, last = explained(repo), [HEAD], None
    for key, entry in known_keys(schema).items():
        # Sections themselves have no row in config/README.md.
        if key not in told:
            continue
        section = re.split(r"[.\[]", key)[0]
        title = "The run" if section in ("run", "seed") else f"`{section}`"
        if title != last:
            lines += ["", f"## {title}", "", "| key | type and limits | default | what it does |"]
            lines += ["| --- | --- | --- | --- |"]
            last = title
        default, what = told[key]
        allowed = "; ".join(filter(None, [kind(entry), limits(entry)]))
        lines.append(f"| `{key}` | {allowed} | {default} | {_relinked(what)} |")
    return "\n".join(lines) + "\n"


def _relinked(text):
    """Text of config/README.md with links that hold in reference/."""
    return re.sub(r"\]\((#)", r"](../config/README.md\1", text)
