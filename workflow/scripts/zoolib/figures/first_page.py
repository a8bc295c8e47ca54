"""The first page of the report: what was run, the numbers that matter, figures, and what to do next."""

import base64
import html
import io
import json
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from zoolib.job.logs import log, whole
from zoolib.job.words import in_words
from zoolib.scores.advice import MAIN

STYLE = """
.first {max-width: 62em; font: 15px/1.45 system-ui, sans-serif}
.first h2 {margin: 1.3em 0 .4em; font-size: 1.2em; font-weight: 600}
.first ul {margin: .3em 0 .3em 1.2em; list-style: disc}
.first table {border-collapse: collapse; width: 100%}
.first th, .first td {padding: .3em .8em .3em 0; border-bottom: 1px solid #ddd; text-align: left}
.first td {vertical-align: top}
.first td {font-variant-numeric: tabular-nums}
.first .wide {overflow-x: auto}
.first figure {margin: 1em 0}
.first img {max-width: 100%; border: 1px solid #ddd}
.first figcaption {color: #555}
.first code {background: #f3f3f3; padding: 0 .2em; overflow-wrap: anywhere}
/* Snakemake centres the text in the screen: without this the top of a long one could not be reached. */
div.h-screen:has(.first) {align-items: flex-start; justify-content: flex-start}
.prose:has(.first) {max-width: 54rem}
@media (max-width: 1200px) {#rulegraph {display: none}}
.first code::before, .first code::after {content: none !important}
"""
# Widest picture in pixels; the complete figures are in the menu.
WIDTH = 1200
FIGURES, REASONS, LABELS = 3, 3, 5
# The share of a survey that looks unlike the training set is usually 1 %; more than this deserves a word.
MANY_UNLIKE = 0.05


def write_first_page(found, tasks, targets, labelled, output):
    """Write the first page as a piece of HTML, which the description of the workflow shows.

    Args:
        found: attributes with lists of files, each empty where the run has none:
            models (`model.json` of each member), fits (the same of each finetuned model), summary (galaxies
            after each cut), scores, losses, confusion, coverage and table_1 (of the evaluation), task_scores,
            advice and task_summaries (one a task), unfamiliar (one a target), not_used (tables of rejected
            rows and images) and figures (PNG files, the most important first).
        tasks: names of the tasks.
        targets: names of the targets.
        labelled: names of those with labels of the user, which have target_scores.
        output: HTML file to write.
    """
    numbers = [
        *_of_votes(found),
        *_of_labels(found.task_scores, tasks),
        *_of_labels(found.target_scores, labelled),
        *_of_targets(found, targets),
    ]
    parts = [
        f"<style>{STYLE}</style><div class='first'>",
        "<h2>What was run</h2>",
        _bullets(_what_was_run(found, tasks, targets)),
        "<h2>The numbers that matter</h2>",
        _table(numbers),
        *(_picture(path) for path in found.figures[:FIGURES]),
        "<h2>What was rejected</h2>",
        _bullets(_rejected(found.not_used)),
        "<h2>What to do next</h2>",
        _bullets(_next(found, tasks, targets)),
        "</div>",
    ]
    with whole(output) as partial:
        partial.write_text("\n".join(parts) + "\n")
    for what, value, *_ in numbers:
        log.info("%s: %s", what, value)


def _what_was_run(found, tasks, targets):
    if found.models:
        about = json.loads(Path(found.models[0]).read_text())
        galaxies = pd.read_csv(found.summary[0]).set_index("step")["galaxies"]
        splits = ", ".join(f"{galaxies[f'split {name}']:,} {name}" for name in ("train", "val", "test"))
        yield (
            f"{_count(found.models, 'model')} ({about['training']['backbone']}, images of"
            f" {about['image']['final_size']} pixels) learned votes; galaxies: {splits}."
        )
    for task, summary in zip(tasks, found.task_summaries, strict=True):
        galaxies = pd.read_csv(summary).set_index("step")["galaxies"]
        splits = [f"{galaxies[step]:,} {step[6:]}" for step in galaxies.index if step.startswith("split ")]
        labelled = ", ".join(splits) or f"{galaxies.iloc[-1]:,}"
        yield f"Finetuned for {task}; labelled galaxies: {labelled}."
    for target, path in zip(targets, found.unfamiliar, strict=True):
        yield f"Posteriors for {target}: {pd.read_csv(path)['galaxies'].iloc[0]:,} galaxies."


def _of_votes(found):
    """Rows of the table: what, value, interval, what it is compared with, galaxies."""
    if not found.scores:
        return
    scores = pd.read_csv(found.scores[0]).set_index(["subset", "question"])
    published = pd.read_csv(found.table_1[0]).set_index(["subset", "question"]) if found.table_1 else None
    confusion = pd.read_csv(found.confusion[0], keep_default_na=False)
    most = confusion.groupby(["subset", "question", "true"])["count"].sum().groupby(level=[0, 1])
    constant = most.max() / most.sum()
    first = scores.index[0]
    row = scores.loc[first]
    beside = [f"one answer for all: {constant[first]:.2f}"]
    beside += [f"published: {published.loc[first, 'accuracy_published']:.4f}"] if found.table_1 else []
    interval = _interval(row["accuracy_low_95"], row["accuracy_high_95"])
    if row["count"]:
        yield f"{in_words(first[1])}: accuracy", _short(row["accuracy"]), interval, beside, row["count"]
    sure = scores.loc["confident"].query("count > 0")
    beside = [f"one answer for all: {constant['confident'][sure.index].mean():.2f}"]
    if found.table_1:
        theirs = published.loc["confident"]["accuracy_published"].reindex(sure.index).mean()
        beside.append(f"published: {theirs:.4f}")
    what = f"Mean accuracy where the volunteers are confident (questions: {len(sure)})"
    if len(sure):
        yield what, _short(sure["accuracy"].mean()), "", beside, sure["count"].sum()
    total = pd.read_csv(found.losses[0]).set_index("question").loc["total"]
    beside = [f"one answer for all: {total['constant']:.3f}"]
    yield "Test loss (nats a galaxy; less is better)", f"{total['model']:.3f}", "", beside, total["galaxies"]
    covered = pd.read_csv(found.coverage[0])
    covered = covered[(covered["measure"] == "votes") & (covered["selected"] == "predicted")]
    covered = covered[(covered["stated"] == 0.9) & (covered["answer"] == "all") & (covered["galaxies"] > 0)]
    if len(covered):
        actual, expected = (
            np.average(covered[name], weights=covered["galaxies"]) for name in ("actual", "expected")
        )
        what = "Votes inside their 90 % intervals, all questions"
        yield what, f"{actual:.1%}", "", [f"if right: {expected:.1%}"], covered["galaxies"].max()


def _of_labels(tables, names):
    for name, path in zip(names, tables, strict=True):
        scores = pd.read_csv(path)
        test = scores[(scores["split"] == "test") & scores["score"].isin(MAIN)]
        for row in test.drop_duplicates("label").head(LABELS).to_dict("records"):
            beside = [
                f"{word}: {_short(row[other])}"
                for other, word in (("constant", "one answer for all"), ("probe", "linear probe"))
                if not pd.isna(row.get(other, np.nan))
            ]
            what = f"{in_words(row['label'])}: {row['score'].replace('_', ' ')}"
            what += "" if row["label"] == name else f" ({name})"
            yield (
                what,
                _short(row["value"]),
                _interval(row["low_95"], row["high_95"]),
                beside,
                row["galaxies"],
            )


def _of_targets(found, targets):
    for target, path in zip(targets, found.unfamiliar, strict=True):
        row = pd.read_csv(path).iloc[0]
        if row["known"]:
            what = f"{target}: galaxies unlike the training set"
            yield what, f"{row['share']:.1%}", "", ["usual: 1 %"], row["known"]


def _rejected(tables):
    counts = []
    for path in tables:
        reasons = pd.read_csv(path, dtype=str, keep_default_na=False)["reason"]
        if len(reasons):
            known = reasons.unique()
            more = " …" if len(known) > REASONS else ""
            counts.append(f"{len(reasons):,} in `{path}`: {'; '.join(known[:REASONS])}{more}")
    return counts or ["No row and no image."]


def _next(found, tasks, targets):
    if found.losses:
        total = pd.read_csv(found.losses[0]).set_index("question").loc["total"]
        if total["model"] >= total["constant"]:
            yield (
                "The models are not better than one answer for all galaxies: train longer, or with more"
                " galaxies."
            )
    for task, path in zip(tasks, found.advice, strict=True):
        for row in pd.read_csv(path).itertuples():
            # The sentence begins with the label.
            yield row.advice if row.label == task else f"{task}, {row.advice}"
    for target, path in zip(targets, found.unfamiliar, strict=True):
        folder = Path(path).parent
        if pd.read_csv(path)["share"].iloc[0] > MANY_UNLIKE:
            yield f"Do not trust {target} where `unfamiliar` is above 0.99, or label some of these galaxies."
        yield f"To improve the model, label first what `{folder}/label_next.csv` lists first."
    for path in [*found.fits, *found.models][:1]:
        yield f"Predict other images: `make predict IMAGES=folder MODEL={Path(path).parent}`."


def _count(items, word):
    return f"{len(items)} {word}" + ("" if len(items) == 1 else "s")


def _short(value):
    return f"{value:.2f}" if 0.095 < abs(value) < 10 else f"{value:.3g}"


def _interval(low, high):
    return "" if pd.isna(low) else f"{_short(low)} to {_short(high)}"


def _bullets(lines):
    return "<ul>" + "".join(f"<li>{_marked(line)}</li>" for line in lines) + "</ul>"


def _marked(text):
    """Text as HTML; what is between backquotes is code."""
    pieces = html.escape(text).split("`")
    return "".join(f"<code>{piece}</code>" if number % 2 else piece for number, piece in enumerate(pieces))


def _table(rows):
    head = ("", "this run", "95 % interval", "beside it", "galaxies")
    cells = ["<tr>" + "".join(f"<th>{name}</th>" for name in head) + "</tr>"]
    for what, value, interval, beside, galaxies in rows:
        shown = (what, value, interval, "; ".join(beside), f"{int(galaxies):,}")
        cells.append("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in shown) + "</tr>")
    return f"<div class='wide'><table>{''.join(cells)}</table></div>" if rows else "<p>None.</p>"


def _picture(path):
    """A figure as part of the page, small enough for a first look."""
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    picture.thumbnail((WIDTH, 4 * WIDTH))
    packed = io.BytesIO()
    picture.save(packed, "JPEG", quality=88)
    shown = base64.b64encode(packed.getvalue()).decode()
    name = html.escape(str(path))
    image = f"<img alt='{name}' src='data:image/jpeg;base64,{shown}'>"
    return f"<figure>{image}<figcaption>{name}</figcaption></figure>"
