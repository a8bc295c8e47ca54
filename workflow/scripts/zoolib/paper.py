"""Stage paper: a run's scores beside the published ones, and what the paper's figures are drawn from."""

import html

import numpy as np
import pandas as pd

from zoolib.config.published import SCORES
from zoolib.job.logs import UserError, log, whole
from zoolib.job.words import in_words
from zoolib.report import STYLE

HALVES = {"all": "All relevant galaxies", "confident": "Galaxies with confident volunteers"}
# Standard errors from which a difference is worth a thought: 1 in 370 by chance.
FAR = 3
# Galaxies below which a share is too far from normally distributed for a difference in standard errors.
FEWEST = 10
PAGE_STYLE = f"""{STYLE}
body {{font-size: 13px; margin: 1em}}
p {{max-width: 62em}}
td:first-child {{white-space: nowrap}}
p.warning {{border-left: 5px solid #D55E00; padding: .5em 1em; background: #fbeee6; font-weight: 600}}
h2 {{margin: 1.6em 0 .5em; font-size: 1.15em}}
td.number, th.number {{text-align: right; padding: .3em .5em}}
td.first, th.first {{border-left: 1px solid #ccc; padding-left: 1.2em}}
th.group {{text-align: center; border-bottom: 1px solid #ccc}}
td.theirs, td.off {{color: #777}}
td.far {{color: #B34700; font-weight: 700}}
"""


def compare_scores(scores, published):
    """Set scores beside published ones (Walmsley et al. 2022, table 1).

    Both are samples of galaxies. If both came from one survey and one classifier, the difference
    of two accuracies would have the standard error √(p(1 - p)(1/n + 1/m)) with the accuracy p of
    both samples together; for n = m this is √2 times the binomial one. Where both are perfect (or
    nothing is right) the difference is 0 and needs no error. Precision, recall and F1 are averages
    over galaxies, weighted by the true answers; recall is then the accuracy, and for the others the
    same formula with the score in the place of the accuracy is an approximation: right in size, as
    each is a share of galaxies, but not exact, as the denominators of precision vary too.

    Args:
        scores: data frame of `evaluate`: question, subset, count, and the scores.
        published: as `published.read_published` gives it.

    Returns:
        pandas.DataFrame: question, subset, count, count_published, and for each score the score,
        `{score}_published` and `{score}_difference`, in standard errors; NaN with fewer than `FEWEST`
        galaxies of ours.
    """
    rows = []
    ours = scores.set_index(["subset", "question"])
    for subset in HALVES:
        for question, theirs in published["table_1"][subset].items():
            mine = ours.loc[(subset, question)]
            count, count_published = int(mine["count"]), theirs["count"]
            row = {"question": question, "subset": subset}
            row |= {"count": count, "count_published": count_published}
            for score in SCORES:
                difference = in_standard_errors(mine[score], count, theirs[score], count_published)
                row |= {score: mine[score], f"{score}_published": theirs[score]}
                row[f"{score}_difference"] = difference if count >= FEWEST else np.nan
            rows.append(row)
    return pd.DataFrame(rows)


def in_standard_errors(share, count, other, other_count):
    """The difference of two shares in units of its standard error.

    Args:
        share: of `count` galaxies, 0 to 1.
        count: how many.
        other: of `other_count` galaxies, 0 to 1.
        other_count: how many.

    Returns:
        float; 0 where both are equal, NaN where one has no galaxies.
    """
    if not count or not other_count or np.isnan(share) or np.isnan(other):
        return np.nan
    if share == other:
        return 0.0
    together = (share * count + other * other_count) / (count + other_count)
    return (share - other) / np.sqrt(together * (1 - together) * (1 / count + 1 / other_count))


def compare_with_published(scores, published, warning, table, page):
    """Write the paper's table 1 with the run's scores beside it.

    Args:
        scores: CSV of `evaluate`.
        published: published numbers, as `published.read_published` gives them.
        warning: why the two may differ whatever the models are worth; empty if they may not.
        table: CSV to write, with the columns of `compare_scores`.
        page: HTML to write, the same to be read, in two halves.

    Raises:
        UserError: a question of the paper was not scored.
    """
    found = pd.read_csv(scores)
    missing = set(published["table_1"]["all"]) - set(found["question"])
    if missing:
        raise UserError(
            f"{scores}: has no scores of '{min(missing)}', which {published['title']} has; set"
            " evaluate.published to null for a tree of other questions."
        )
    compared = compare_scores(found, published)
    with whole(table) as partial:
        compared.to_csv(partial, index=False, float_format="%.6g")
    with whole(page) as partial:
        partial.write_text(_page(compared, published["title"], warning))
    differences = compared.filter(like="_difference").to_numpy()
    log.info(
        "%d of %d scores are more than %d standard errors from %s",
        (np.abs(differences) > FAR).sum(),
        (~np.isnan(differences)).sum(),
        FAR,
        published["title"],
    )
    if warning:
        log.warning("%s", warning)


def _page(compared, title, warning):
    parts = [f"<p class='warning'>{html.escape(warning)}</p>"] if warning else []
    parts.append(
        f"<p>This run beside {title}. <i>Difference</i>: ours less theirs, in units of its standard error"
        " (both are samples of galaxies; binomial for the accuracy, and with the same formula approximately"
        f" for the others); beyond ±{FAR} it is marked, and with fewer than {FEWEST} galaxies"
        " of ours, too few for such an error, it is left out (–).</p>"
    )
    for subset, name in HALVES.items():
        parts += [f"<h2>{name}</h2>", _half(compared[compared["subset"] == subset])]
    return (
        f"<!DOCTYPE html><html><meta charset='utf-8'><style>{PAGE_STYLE}</style><body>"
        + "\n".join(parts)
        + "</body></html>\n"
    )


def _half(rows):
    groups = "".join(f"<th colspan='3' class='group first'>{in_words(score)}</th>" for score in SCORES)
    names = "".join(
        f"<th class='number{first}'>{name}</th>"
        for name, first in (("ours", " first"), ("published", ""), ("difference", ""))
    )
    counts = "<th class='number first'>ours</th><th class='number'>published</th>"
    lines = [
        f"<tr><th></th><th colspan='2' class='group first'>Galaxies</th>{groups}</tr>",
        f"<tr><th>Question</th>{counts}{names * len(SCORES)}</tr>",
    ]
    for row in rows.to_dict("records"):
        cells = f"<td>{in_words(row['question'])}</td><td class='number first'>{row['count']:,}</td>"
        cells += f"<td class='number theirs'>{row['count_published']:,}</td>"
        for score in SCORES:
            difference = row[f"{score}_difference"]
            place = "far" if abs(difference) > FAR else "off"
            cells += f"<td class='number first'>{_number(row[score], '.4f')}</td>"
            cells += f"<td class='number theirs'>{_number(row[f'{score}_published'], '.4f')}</td>"
            cells += f"<td class='number {place}'>{_number(difference, '+.1f')}</td>"
        lines.append(f"<tr>{cells}</tr>")
    return f"<table>{''.join(lines)}</table>"


def _number(value, form):
    return "–" if np.isnan(value) else format(value, form).replace("-", "−")
