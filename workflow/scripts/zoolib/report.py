"""Tables of the report that say what was run: the configuration, and where the results come from."""

import json
from pathlib import Path

import pandas as pd

from zoolib.job.logs import whole

# What of a model's description tells where it comes from.
ORIGIN = ("seed", "data", "versions", "scores")
STYLE = """
body {font: 15px/1.4 system-ui, sans-serif; margin: 1.5em; color: #222; background: #fff}
table {border-collapse: collapse}
th, td {padding: .35em 1em; border-bottom: 1px solid #ddd; text-align: left; vertical-align: top}
th {border-bottom: 2px solid #222}
td {font-variant-numeric: tabular-nums; overflow-wrap: break-word; max-width: 44em}
"""
PAGE = "<!DOCTYPE html><html><meta charset='utf-8'><style>{style}</style><body>{table}</body></html>\n"


def write_configuration(configuration, output):
    """Write every key of a configuration with its value.

    Args:
        configuration: nested dicts and lists of plain values, defaults filled in.
        output: CSV to write: key (such as `train.ensembles[0].members`), value.
    """
    _write(list(flatten(configuration).items()), ["key", "value"], output)


def write_provenance(abouts, output):
    """Write the seeds, data hashes, software versions and scores of some models.

    What all models have in common is told once, under `all models`.

    Args:
        abouts: `model.json` files of the models.
        output: CSV to write: model (its folder), key, value.
    """
    told = {}
    for path in abouts:
        about = json.loads(Path(path).read_text())
        told[str(Path(path).parent)] = flatten({key: about[key] for key in ORIGIN if key in about})
    common = {}
    if len(told) > 1:
        first, *others = told.values()
        common = {
            key: value for key, value in first.items() if all(key in o and o[key] == value for o in others)
        }
    rows = [("all models", key, value) for key, value in common.items()]
    for model, values in told.items():
        rows += [(model, key, value) for key, value in values.items() if key not in common]
    _write(rows, ["model", "key", "value"], output)


def flatten(value, name=""):
    """Nested plain values as one level.

    Args:
        value: dicts and lists of plain values.
        name: of the value itself.

    Returns:
        {path to a value: the value}; empty dicts and lists, and None, are the word `none`.
    """
    if isinstance(value, dict) and value:
        inner = {f"{name}.{key}" if name else str(key): entry for key, entry in value.items()}
    elif isinstance(value, list | tuple) and any(isinstance(entry, dict | list) for entry in value):
        inner = {f"{name}[{index}]": entry for index, entry in enumerate(value)}
    elif isinstance(value, list | tuple):
        return {name: ", ".join(map(str, value)) or "none"}
    else:
        return {name: "none" if value in (None, {}) else value}
    flat = {}
    for key, entry in inner.items():
        flat |= flatten(entry, key)
    return flat


def _write(rows, columns, output):
    with whole(output) as partial:
        pd.DataFrame(rows, columns=columns).to_csv(partial, index=False)


def show_tables(tables, pages):
    """Make pages out of CSV tables: Snakemake's report shows HTML, and only offers CSV for download.

    Args:
        tables: CSV files.
        pages: HTML files to write, in the same order.
    """
    for table, page in zip(tables, pages, strict=True):
        content = pd.read_csv(table).rename(columns=lambda name: name.replace("_", " "))
        shown = content.to_html(
            index=False, na_rep="", float_format="{:.4g}".format, border=0, justify="left"
        )
        if content.empty:
            shown = "<p>None.</p>"
        with whole(page) as partial:
            partial.write_text(PAGE.format(style=STYLE, table=shown))
