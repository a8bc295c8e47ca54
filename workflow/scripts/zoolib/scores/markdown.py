"""Tables of scores and of coverage in Markdown, for the card of a model."""

import pandas as pd

from zoolib.scores.calibration import judged, verdicts

# Columns of the tables of scores that are shown; those of volunteers and those of labels have different ones.
SHOWN = ("label", "question", "subset", "split", "score", "count", "galaxies", "value", "accuracy")
SHOWN += ("precision", "recall", "f1", "low_95", "high_95", "constant")


def table(rows, columns):
    """A table in Markdown.

    Args:
        rows: lists of cells; None and NaN are empty cells, and a dict is one cell.
        columns: names.

    Returns:
        Text of several lines.
    """
    lines = [[*columns], ["---"] * len(columns)]
    lines += [["" if cell is None or cell != cell else _in_cell(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _in_cell(cell):
    if isinstance(cell, dict):
        cell = ", ".join(f"{key} {value}" for key, value in cell.items())
    text = f"{cell:.4g}" if isinstance(cell, float) else str(cell)
    return text.replace("|", "\\|").replace("\n", " ")


def scores_in_markdown(tables, min_votes):
    """What a run has measured of a model.

    Args:
        tables: {"scores", "coverage": data frame}, as far as the run has them.
        min_votes: of the galaxies of a comparison with volunteers; None for the scores of a task.

    Returns:
        A section in Markdown; without scores it says that there are none.
    """
    begin = "## Scores and coverage\n\n"
    if "scores" not in tables:
        what = "Not measured: the run has compared no predictions of this model with volunteers or labels."
        return f"{begin}{what}"
    scores = tables["scores"]
    whose = "Of this model, on the galaxies of its task:"
    if min_votes is not None:
        whose = f"Of the ensemble, on test galaxies with at least {min_votes} votes, by its posteriors:"
    chosen = [column for column in SHOWN if column in scores]
    lines = [f"{begin}{whose}", table(scores[chosen].itertuples(index=False), chosen)]
    if "coverage" not in tables:
        return "\n\n".join([*lines, "Coverage of the intervals was not measured."])
    rows = judged(tables["coverage"])
    rows = rows[rows["galaxies"] > 0]
    away = (100 * (rows["actual"] - rows["expected"])).map("{:+.1f}".format)
    wide = rows.assign(away=away)
    wide = wide.pivot(index=["question", "measure", "galaxies"], columns="stated", values="away")
    columns = [*wide.index.names, *(f"{mass:.0%}" for mass in wide.columns)]
    lines += [
        "How far credible intervals of the stated mass hold more or less than they should, in points (+: too"
        " wide, -: too certain). `truth` is the simulated probability, `votes` the number of votes:",
        table(wide.reset_index().itertuples(index=False), columns),
        " ".join(verdicts(tables["coverage"])),
    ]
    return "\n\n".join(lines)


def measured(tables):
    """Names of the scores in the tables of `scores_in_markdown`: columns, or cells of the column `score`."""
    scores = tables.get("scores", pd.DataFrame())
    return {*scores.columns, *scores.get("score", ())}
