"""Stage paper: the scores of a run beside the published ones."""

import html

import numpy as np
import pandas as pd

from zoolib.config.published import RELEVANCE, SCORES, SUBSETS
from zoolib.figures.pages import write_page
from zoolib.job.logs import UserError, log, whole
from zoolib.job.words import in_words

# Differences beyond so many standard errors are marked: by chance, 1 in 370 is.
FAR = 3
# With fewer galaxies a share is too far from normally distributed for a difference in standard errors.
FEWEST = 10
STYLE = """
body {font-size: 13px; margin: 1em}
p {max-width: 62em}
td:first-child {white-space: nowrap}
p.warning {border-left: 5px solid #D55E00; padding: .5em 1em; background: #fbeee6; font-weight: 600}
h2 {margin: 1.6em 0 .5em; font-size: 1.15em}
td.number, th.number {text-align: right; padding: .3em .5em}
td.first, th.first {border-left: 1px solid #ccc; padding-left: 1.2em}
th.group {text-align: center; border-bottom: 1px solid #ccc}
td.theirs, td.off {color: #777}
td.far {color: #B34700; font-weight: 700}
"""


def compare_scores(scores, published):
    """Set scores beside published ones (Walmsley et al. 2022, table 1).

    Both are samples of galaxies. If both came from one survey and one classifier, the difference of
    two accuracies would have the standard error √(p(1 - p)(1/n + 1/m)), where p is the accuracy of both
    samples together. For n = m this is √2 times the binomial standard error. If both scores are 1, or
    both are 0, the difference is 0 and needs no error.

    Precision, recall and F1 are averages weighted by the true answers. Recall is then the accuracy. For
    precision and F1 the formula, with the score in the place of the accuracy, is an approximation: it has
    the right size, because each is a share of galaxies, but it ignores that the denominators of precision
    vary too.

    Args:
        scores: data frame of `evaluate`: question, subset, count, the scores, and the counts by each rule.
        published: as `published.read_published` returns it.

    Returns:
        pandas.DataFrame: question, subset, count, count_published, and for each score the score,
        `{score}_published` and `{score}_difference`, in standard errors; NaN if the run has fewer than
        `FEWEST` galaxies or the question is not comparable. Then the counts by each rule of `RELEVANCE`
        (count_product, count_asked), and not_comparable, the reason or nothing.
    """
    rows, reasons = [], published.get("not_comparable", {})
    ours = scores.set_index(["subset", "question"])
    for subset in SUBSETS:
        for question, theirs in published["table_1"][subset].items():
            mine = ours.loc[(subset, question)]
            count, count_published = int(mine["count"]), theirs["count"]
            row = {"question": question, "subset": subset}
            row |= {"count": count, "count_published": count_published}
            for score in SCORES:
                difference = in_standard_errors(mine[score], count, theirs[score], count_published)
                row |= {score: mine[score], f"{score}_published": theirs[score]}
                comparable = count >= FEWEST and question not in reasons
                row[f"{score}_difference"] = difference if comparable else np.nan
            row |= {f"count_{rule}": int(mine[f"count_{rule}"]) for rule in RELEVANCE}
            rows.append(row | {"not_comparable": reasons.get(question)})
    return pd.DataFrame(rows)


def in_standard_errors(share, count, other, other_count):
    """The difference of two shares in units of its standard error.

    Args:
        share: share of `count` galaxies, 0 to 1.
        count: number of galaxies.
        other: share of `other_count` galaxies, 0 to 1.
        other_count: number of galaxies.

    Returns:
        float; 0 if both are equal, NaN if one has no galaxies.
    """
    if not count or not other_count or np.isnan(share) or np.isnan(other):
        return np.nan
    if share == other:
        return 0.0
    together = (share * count + other * other_count) / (count + other_count)
    return (share - other) / np.sqrt(together * (1 - together) * (1 / count + 1 / other_count))


def compare_with_published(scores, published, warning, output):
    """Write the paper's table 1 with the run's scores beside it.

    Args:
        scores: CSV of `evaluate`.
        published: published numbers, as `published.read_published` returns them.
        warning: a reason why the two differ that is not the models, such as other galaxies; or empty.
        output: attributes table (CSV with the columns of `compare_scores`) and page (HTML: the same as a
            table to read, in two halves).

    Raises:
        UserError: a question of the paper was not scored.
    """
    found = pd.read_csv(scores)
    missing = set(published["table_1"]["all"]) - set(found["question"])
    if missing:
        raise UserError(
            f"{scores}: has no scores of '{min(missing)}', but {published['title']} has them; set"
            " evaluate.published to null for a tree of other questions."
        )
    compared = compare_scores(found, published)
    with whole(output.table) as partial:
        compared.to_csv(partial, index=False, float_format="%.6g")
    write_page(output.page, _page(compared, published["title"], warning), STYLE)
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
        f"<p>This run beside {title}. <i>Difference</i> is our score minus theirs, divided by the standard"
        " error of the difference, because both are samples of galaxies. The standard error is binomial for"
        " the accuracy, and the same formula is an approximation for the other scores. Differences beyond"
        f" ±{FAR} are marked. With fewer than {FEWEST} galaxies of ours there is no difference (–): they are"
        " too few for such a standard error.</p>"
    )
    for subset, name in SUBSETS.items():
        parts += [f"<h2>{name}</h2>", _half(compared[compared["subset"] == subset])]
    for row in compared[compared["subset"] == "all"].dropna(subset="not_comparable").to_dict("records"):
        reason = html.escape(row["not_comparable"])
        parts.append(f"<p>* {in_words(row['question'])} is not comparable: {reason}.</p>")
    return "\n".join([*parts, "<h2>Which galaxies a question counts for</h2>", *_rules(compared)])


def _rules(compared):
    """The counts by each rule beside the published ones, for the questions where the rules differ."""
    parts = [
        "<p>By the rule <i>product</i>, a question counts for a galaxy if the product of the vote fractions"
        " of the answers that lead to it is above one half, and if it has a vote. This is the rule of Zoobot"
        " 0.0.3, by the first author of the paper (<code>evaluate_model.filter_to_sensible</code>, removed at"
        " commit 5c96aa4). The paper itself says that more than half of the volunteers were asked. By the"
        " rule <i>asked</i>, at least half of the volunteers were asked: exact halves count, and galaxies"
        " that most volunteers call an artifact do not count for the questions about all galaxies.</p>"
    ]
    everything = compared[compared["subset"] == "all"]
    first = everything.iloc[0]
    differ = everything[everything["count_product"] != everything["count_asked"]]
    if differ.empty:
        return [*parts, "<p>Both rules choose the same galaxies of this run.</p>"]
    columns = [f"count_{rule}" for rule in RELEVANCE] + ["count_published"]
    lines = [
        "<tr><th>Question</th><th class='number'>product</th><th class='number'>asked</th>"
        "<th class='number'>published</th></tr>"
    ]
    for row in differ.to_dict("records"):
        numbers = "".join(
            f"<td class='number'>{row[column]:,} ({row[column] / max(first[column], 1):.1%})</td>"
            for column in columns
        )
        lines.append(f"<tr><td>{_name(row)}</td>{numbers}</tr>")
    about = (
        "<p>The questions for which the two rules choose different galaxies of this run. In brackets: the"
        " share of the galaxies of the first row. Only a run of the paper's galaxies can show which rule is"
        " the paper's.</p>"
    )
    return [*parts, about, f"<table>{''.join(lines)}</table>"]


def _name(row):
    return in_words(row["question"]) + ("" if pd.isna(row["not_comparable"]) else " *")


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
        cells = f"<td>{_name(row)}</td><td class='number first'>{row['count']:,}</td>"
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
