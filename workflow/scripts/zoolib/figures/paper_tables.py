"""The paper's figures that need only tables: votes, active learning, debiasing, bulges and winding."""

import numpy as np
import pandas as pd
from matplotlib.ticker import FuncFormatter, MaxNLocator

from zoolib.data.tables import read_table
from zoolib.figures.style import COLORS, FAINT, SEQUENTIAL, drawing, write_message
from zoolib.posteriors.summary import probability_asked

# Fewest galaxies for a histogram.
FEWEST = 10
# From this number of galaxies on, a density is drawn instead of points.
MANY = 1000
MOST_VOTES = 85
GROUPS = {
    "pre_active": "Random, until 40 votes",
    "active_baseline": "Random, until 5 votes",
    "active_priority": "Chosen by active learning",
}
OTHERS = "Other or unknown"
FEATURED = "smooth-or-featured_featured-or-disk"
# Galaxies between these redshifts have debiased fractions (section 4.3.2).
REDSHIFTS = (0.02, 0.15)
# Figure 10: bins of redshift, the share above which an answer or a chain of answers counts as given, and the
# number of votes on the question that a galaxy must have more than.
BINS = np.linspace(*REDSHIFTS, 14)
MOSTLY = 0.5
MORE_THAN = 5
DEBIASED = {FEATURED: "Featured or disk", "has-spiral-arms_yes": "Spiral arms", "bar_no": "No bar"}
# The cuts of section 6 and the weights of equations 8 and 9.
CUTS = {
    FEATURED: 0.43,
    "disk-edge-on_no": 0.715,
    "has-spiral-arms_yes": 0.619,
    "merging_none": 0.5,
}
BULGE = {"small": 0.25, "moderate": 0.5, "large": 0.75, "dominant": 1.0}
WINDING = {"medium": 0.5, "tight": 1.0}
EXTRAS = ("upload_group", "petro_theta", "redshift")


def read_record_table(path, tree=None):
    """Read the columns of a record's table that the figures need.

    Args:
        path: CSV or Parquet: volunteers' votes, published posteriors, or a flat catalogue of this
            pipeline.
        tree: `DecisionTree` of the votes; None for a table of fractions alone.

    Returns:
        pandas.DataFrame with upload_group, petro_theta and redshift, and for each answer its votes,
        `_fraction` and `_debiased`, as far as the table has them; and `total`, votes on the first
        question, if the table has votes. The answers have the names of the tree, not of the table.
    """
    needed = {column.rsplit("_", 1)[0] for column in (*CUTS, *DEBIASED)} | {"bulge-size", "spiral-winding"}
    found = {}

    def choose(columns):
        renamed = tree.vote_columns(columns, path) if tree else {}
        for ours, theirs in renamed.items():
            for end in ("", "_fraction", "_debiased"):
                if theirs + end in columns:
                    found[theirs + end] = ours + end
        asked = [c for c in columns if c.endswith("_fraction") and c.rsplit("_", 2)[0] in needed]
        total = [c for c in columns if c == "smooth-or-featured_total-votes"]
        found.update({c: c for c in [*asked, *total] if c not in found})
        return [c for c in columns if c in found or c in EXTRAS]

    table = read_table(path, choose).rename(columns=found)
    more = {}
    for question in tree.questions if tree else ():
        asked = table[question.columns].sum(axis=1)
        more |= {f"{column}_fraction": table[column] / asked.where(asked > 0) for column in question.columns}
    if tree:
        more["total"] = table[tree.questions[0].columns].sum(axis=1)
    elif "smooth-or-featured_total-votes" in table:
        more["total"] = table["smooth-or-featured_total-votes"]
    return pd.concat([table.drop(columns=set(more) & set(table)), pd.DataFrame(more)], axis=1)


def draw_tables(votes, tree, title, earlier, models, published, outputs):
    """Draw the paper's figures that need only tables (Walmsley et al. 2022, figures 2, 3, 10 and 20).

    Args:
        votes: tables with the votes of the run's catalogues.
        tree: their `DecisionTree`.
        title: name of the campaign of the run.
        earlier: {title: table of an earlier campaign, for figure 2}; may be empty.
        models: {title: (tables with the fractions that models expect, number of galaxies in the paper's
            figure 20, or None if the paper has no such panel)}.
        published: published numbers of the figures, {"figure_20": …}.
        outputs: {"figure_02", "figure_03", "figure_10", "figure_20": paths to write, svg or png}.
    """
    own = _read_all(votes, tree)
    campaigns = {name: _read_all([path]) for name, path in earlier.items()}
    draw_classifications(campaigns | {title: own}, outputs["figure_02"])
    draw_selection(own, outputs["figure_03"])
    draw_debiasing(own, tree, outputs["figure_10"])
    sources = {"Volunteers": (chosen_by_volunteers(own), published["figure_20"]["volunteers"])}
    sources |= {name: (_read_all(paths), count) for name, (paths, count) in models.items()}
    draw_bulges(sources, outputs["figure_20"])


def _read_all(paths, tree=None):
    return pd.concat([read_record_table(path, tree) for path in paths], ignore_index=True)


def draw_classifications(campaigns, outputs):
    """Draw how many volunteers classified each galaxy (figure 2).

    Args:
        campaigns: {name: table with total, and with upload_group if known}.
        outputs: paths to write.
    """
    size = (10, 1 + 3.6 * len(campaigns))
    with drawing(outputs, figsize=size, layout="constrained") as figure:
        panels = figure.subplots(len(campaigns), squeeze=False, sharex=True).ravel()
        edges = np.arange(0.5, MOST_VOTES + 1.5)
        for panel, (name, table) in zip(panels, campaigns.items(), strict=True):
            group = table["upload_group"] if "upload_group" in table else pd.Series(None, table.index, str)
            group = group.map(GROUPS).fillna(OTHERS)
            totals = table["total"].clip(upper=MOST_VOTES)
            shown = [label for label in (*GROUPS.values(), OTHERS) if (group == label).any()]
            colors = dict(zip((*GROUPS.values(), OTHERS), (*COLORS[:3], "#bbbbbb"), strict=True))
            panel.hist(
                [totals[group == label] for label in shown],
                edges,
                stacked=True,
                color=[colors[label] for label in shown],
                label=[f"{label} ({(group == label).sum():,})" for label in shown],
            )
            median, many = table["total"].median(), (table["total"] >= 30).mean()
            panel.set_title(
                f"{name}: {len(table):,} galaxies, median {median:g} votes, {many:.0%} with 30 or more",
                loc="left",
            )
            panel.set_ylabel("Galaxies")
            panel.yaxis.set_major_locator(MaxNLocator(5, integer=True))
            panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
            panel.legend(loc="upper right")
            panel.set_xlim(0, MOST_VOTES + 1)
        panels[-1].set_xlabel(f"Votes on the first question (the last bin: {MOST_VOTES} or more)")


def draw_selection(table, outputs):
    """Draw the galaxies that active learning chose beside random ones (figure 3).

    Args:
        table: with upload_group, petro_theta and the featured fraction.
        outputs: paths to write.
    """
    measures = {
        f"{FEATURED}_fraction": ("Vote fraction of featured or disk", np.linspace(0, 1, 21)),
        "petro_theta": ("Petrosian radius (arcsec)", np.linspace(0, 30, 31)),
    }
    with drawing(outputs, figsize=(12, 5.2), layout="constrained") as figure:
        missing = [name for name in ("upload_group", *measures) if name not in table]
        if missing:
            write_message(figure, f"The table has no column {missing[0]}.")
            return
        groups = {name: table[table["upload_group"] == name] for name in ("pre_active", "active_priority")}
        if min(map(len, groups.values())) < FEWEST:
            found = ", ".join(f"{len(rows)} of {name}" for name, rows in groups.items())
            write_message(figure, _too_few(found, f"{FEWEST} or more of each"))
            return
        for panel, (column, (label, edges)) in zip(figure.subplots(1, 2), measures.items(), strict=True):
            for color, (name, rows) in zip(COLORS, groups.items(), strict=False):
                values = rows[column].dropna().clip(edges[0], edges[-1])
                shares = np.histogram(values, edges)[0] / max(len(values), 1)
                panel.stairs(shares, edges, color=color, lw=2.5, label=f"{GROUPS[name]} ({len(rows):,})")
                panel.axvline(values.median(), color=color, ls=":", lw=2)
            panel.set_xlabel(label)
            panel.set_xlim(edges[0], edges[-1])
            panel.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
            panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:.0%}"))
        figure.axes[0].set_ylabel("Share of the galaxies")
        lines = figure.axes[0].get_legend_handles_labels()
        figure.legend(*lines, loc="outside upper left", ncols=2, fontsize=14)


def counts_by_redshift(table, tree, column):
    """Galaxies whose votes are mostly for an answer, in bins of redshift, before and after debiasing.

    A galaxy counts where the fraction of the answer is above one half, and so is the product of the fractions
    that lead to its question. Both samples are of the galaxies with debiased fractions and more than
    `MORE_THAN` votes on the question.

    Args:
        table: with redshift, votes, and the fractions `_fraction` and `_debiased`.
        tree: the `DecisionTree` of the votes.
        column: the answer.

    Returns:
        ({end of the columns: (bins of `BINS`,) numbers of galaxies}, number of galaxies of the samples).
    """
    number = next(number for number, q in enumerate(tree.questions) if column in q.columns)
    asked = table[tree.questions[number].columns].sum(axis=1)
    used = table[f"{column}_debiased"].notna() & (asked > MORE_THAN) & table["redshift"].between(*REDSHIFTS)
    counts = {}
    for end in ("_fraction", "_debiased"):
        fractions = table.reindex(columns=[f"{name}{end}" for name in tree.columns]).fillna(0)
        chain = probability_asked(fractions.to_numpy(float), tree)[:, number]
        passed = used & (table[f"{column}{end}"] > MOSTLY) & (chain > MOSTLY)
        counts[end] = np.histogram(table["redshift"][passed], BINS)[0]
    return counts, int(used.sum())


def draw_debiasing(table, tree, outputs):
    """Draw the number of galaxies with an answer against redshift, before and after debiasing (figure 10).

    Args:
        table: with redshift, votes, and the fractions `_fraction` and `_debiased`.
        tree: the `DecisionTree` of the votes.
        outputs: paths to write.
    """
    with drawing(outputs, figsize=(15, 5), layout="constrained") as figure:
        missing = ["redshift"] if "redshift" not in table else []
        missing += [f"{column}_debiased" for column in DEBIASED if f"{column}_debiased" not in table]
        if missing:
            write_message(figure, f"The table has no column {missing[0]}.")
            return
        known = table[f"{FEATURED}_debiased"].notna().sum()
        if known < 2 * FEWEST:
            needed = f"{2 * FEWEST} or more"
            write_message(figure, _too_few(f"{known} with debiased fractions", needed))
            return
        for panel, (column, name) in zip(figure.subplots(1, len(DEBIASED)), DEBIASED.items(), strict=True):
            _draw_redshift(panel, *counts_by_redshift(table, tree, column), name)
        figure.axes[0].set_ylabel("Galaxies")
        figure.axes[0].legend(loc="best")


def _draw_redshift(panel, counts, galaxies, name):
    panel.set_title(f"{name} ({galaxies:,} galaxies)", loc="left")
    panel.set_xlabel("Redshift")
    panel.grid(axis="y")
    if galaxies < 2 * FEWEST:
        panel.text(0.5, 0.5, "too few galaxies", transform=panel.transAxes, ha="center", color=FAINT)
        return
    styles = {"_fraction": (COLORS[0], "--", "before debiasing"), "_debiased": (COLORS[1], "-", "after")}
    for end, (color, line, label) in styles.items():
        panel.stairs(counts[end], BINS, color=color, ls=line, lw=2.5, label=label)
    panel.set_ylim(0, 1.1 * max(1, *(values.max() for values in counts.values())))
    panel.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))


def chosen_by_volunteers(table):
    """The galaxies of the volunteers' panel of figure 20: those drawn before active learning.

    Args:
        table: table of votes, with upload_group if known.

    Returns:
        The rows; all of them if the table has no upload_group.
    """
    return table[table["upload_group"] == "pre_active"] if "upload_group" in table else table


def bulge_and_winding(table):
    """Bulge size and tightness of the arms of face-on spirals (Walmsley et al. 2022, equations 8, 9).

    B = 0.25 small + 0.5 moderate + 0.75 large + dominant, W = 0.5 medium + tight, of vote fractions,
    for galaxies that pass the cuts of section 6.

    Args:
        table: table with the fractions `{question}_{answer}_fraction`.

    Returns:
        Two arrays (galaxies that pass,), B and W.
    """
    passed = np.all([table[f"{column}_fraction"] > limit for column, limit in CUTS.items()], axis=0)
    chosen = table[passed]
    bulge = sum(weight * chosen[f"bulge-size_{answer}_fraction"] for answer, weight in BULGE.items())
    winding = sum(weight * chosen[f"spiral-winding_{answer}_fraction"] for answer, weight in WINDING.items())
    return bulge.to_numpy(float), winding.to_numpy(float)


def draw_bulges(sources, outputs):
    """Draw how tightly the arms are wound, against the size of the bulge (figure 20).

    Args:
        sources: {name: (table with fractions, number of galaxies in the paper, or None)}.
        outputs: paths to write.
    """
    size = (5.4 * len(sources) + 0.8, 5.6)
    with drawing(outputs, figsize=size, layout="constrained") as figure:
        panels = figure.subplots(1, len(sources), squeeze=False, sharey=True).ravel()
        for panel, (name, (table, published)) in zip(panels, sources.items(), strict=True):
            bulge, winding = bulge_and_winding(table)
            known = np.isfinite(bulge) & np.isfinite(winding)
            beside = f" (paper: {published:,})" if published else ""
            panel.set_title(f"{name}\n{len(bulge):,} galaxies{beside}", loc="left")
            panel.set_xlabel("Bulge size B")
            # Galaxies at 0 and 1 are shown whole.
            panel.set(xlim=(-0.03, 1.03), ylim=(-0.03, 1.03))
            if known.sum() < 2 * FEWEST:
                panel.text(0.5, 0.5, "too few galaxies", transform=panel.transAxes, ha="center", color=FAINT)
                continue
            _draw_density(panel, bulge[known], winding[known])
        panels[0].set_ylabel("Winding W (1 is tight)")


def _draw_density(panel, bulge, winding):
    if len(bulge) < MANY:
        panel.plot(bulge, winding, "o", color=COLORS[0], alpha=0.5, mew=0, ms=6)
    else:
        counts, across, up = np.histogram2d(bulge, winding, bins=25, range=((0, 1), (0, 1)))
        shown = np.ma.masked_equal(counts.T, 0)
        panel.pcolormesh(across, up, shown, cmap=SEQUENTIAL, vmin=-0.15 * counts.max())
    order = np.array_split(np.argsort(bulge), max(2, min(8, len(bulge) // FEWEST)))
    centres = [bulge[rows].mean() for rows in order]
    low, middle, high = np.array([np.quantile(winding[rows], (0.25, 0.5, 0.75)) for rows in order]).T
    panel.plot(centres, middle, "o-", color=COLORS[1], lw=2.5, label="median and quartiles")
    panel.fill_between(centres, low, high, color=COLORS[1], alpha=0.2, lw=0)
    slope = pd.Series(bulge).corr(pd.Series(winding), method="spearman")
    correlation = f"rank correlation {slope:+.2f}".replace("-", "−")
    # Below the panel, because the galaxies may be anywhere in it.
    panel.legend(title=correlation, loc="upper center", bbox_to_anchor=(0.5, -0.16))


def _too_few(found, needed):
    return f"Too few galaxies for this figure ({found}; it needs {needed})."
