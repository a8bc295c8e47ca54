"""Stage report: tables of the configuration and of the origin of the models, and tables as pages."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from zoolib.figures.pages import write_page
from zoolib.job.logs import whole

# The keys of `model.json` that say how a model was made.
ORIGIN = ("seed", "data", "versions", "scores")


def write_configuration(configuration, table, settings):
    """Write every key of a configuration with its value.

    Args:
        configuration: nested dicts and lists of plain values, defaults filled in.
        table: CSV to write, for reading: key (such as `train.ensembles[0].members`), value.
        settings: YAML to write, which `snakemake --configfile` takes to repeat the run.
    """
    _write(list(flatten(configuration).items()), ["key", "value"], table)
    with whole(settings) as partial:
        partial.write_text(yaml.safe_dump(configuration, sort_keys=False, allow_unicode=True))


def write_provenance(abouts, output):
    """Write the seeds, data hashes, software versions and scores of some models.

    What all models have in common is written once, as `all models`.

    Args:
        abouts: `model.json` files of the models.
        output: CSV to write: model (its folder), key, value.
    """
    described = {}
    for path in abouts:
        about = json.loads(Path(path).read_text())
        described[str(Path(path).parent)] = flatten({key: about[key] for key in ORIGIN if key in about})
    common = {}
    if len(described) > 1:
        first, *others = described.values()
        common = {
            key: value for key, value in first.items() if all(key in o and o[key] == value for o in others)
        }
    rows = [("all models", key, value) for key, value in common.items()]
    for model, values in described.items():
        rows += [(model, key, value) for key, value in values.items() if key not in common]
    _write(rows, ["model", "key", "value"], output)


def flatten(value, name=""):
    """Flatten nested plain values to one level.

    Args:
        value: dicts and lists of plain values.
        name: key of the value itself.

    Returns:
        {path to a value: the value}; empty dicts and lists, and None, become the word `none`.
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
    """Write CSV tables as HTML pages: Snakemake's report shows HTML, but offers CSV only for download.

    A score of few galaxies gets few digits: one more than its standard error allows.

    Args:
        tables: CSV files.
        pages: HTML files to write, in the same order.
    """
    for table, page in zip(tables, pages, strict=True):
        content = pd.read_csv(table)
        counts = next((content[name] for name in ("count", "galaxies") if name in content), None)
        for name in content.select_dtypes("floating"):
            digits = 4 if counts is None else counts.map(_digits)
            content[name] = _rounded(content[name], digits)
        shown = content.rename(columns=lambda name: name.replace("_", " "))
        shown = shown.to_html(index=False, na_rep="", border=0, justify="left")
        write_page(page, "<p>None.</p>" if content.empty else shown)


def _digits(galaxies):
    """Significant digits of a score of so many galaxies; a share's standard error is 0.5 / √galaxies."""
    return int(np.clip(np.ceil(np.log10(2 * np.sqrt(galaxies or 1))), 2, 4))


def _rounded(values, digits):
    """Numbers as text with so many significant digits, one number for all or one for each row."""
    digits = pd.Series(digits, index=values.index)
    return [
        "" if np.isnan(value) else f"{value:.{of_value}g}"
        for value, of_value in zip(values, digits, strict=True)
    ]
