"""Posteriors of single galaxies, split by model and pass: the votes that each sample expects."""

import numpy as np
from scipy import stats

from zoolib.figures.gallery import tile_pixels
from zoolib.figures.style import COLORS, FAINT, INK, drawing, write_message
from zoolib.job.words import in_words

# A white box behind text that a line would cross.
BEHIND = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}


def vote_predictions(values, total, kind, weights=None, per_sample=1):
    """Probabilities of the number of votes for one answer, by each posterior sample.

    With the concentrations α of a Dirichlet, the votes for one answer are beta-binomial with α and
    Σα - α; with probabilities they are binomial (Walmsley et al. 2022, equation 6).

    Args:
        values: (2, components): the value of the answer, and the sum of all others.
        total: number of votes.
        kind: `concentrations` or `probabilities`.
        weights: (components,), >= 0, of the components of mixtures; those of each sample have the same sum.
            None: all components are equal.
        per_sample: components of one sample; they are consecutive.

    Returns:
        (samples, total + 1), the probability of each number of votes.
    """
    votes = np.arange(total + 1)
    chosen, others = np.asarray(values, float)[:, :, None]
    if kind == "probabilities":
        return stats.binom.pmf(votes, total, chosen / (chosen + others))
    found = stats.betabinom.pmf(votes, total, chosen, others).reshape(-1, per_sample, total + 1)
    if weights is None:
        return found.mean(axis=1)
    shares = weights.reshape(-1, 1, per_sample) * len(found)
    return (shares @ found)[:, 0]


def spread_galaxies(held, question, answer, count):
    """Choose galaxies from those where no volunteer gives an answer to those where all do.

    Only the votes decide, so that galaxies for which the model is right are not preferred.

    Args:
        held: `HeldOut`.
        question: a `Question` of its tree.
        answer: position of the answer in the question.
        count: number of galaxies.

    Returns:
        Positions in `held`, by rising vote fraction; fewer than `count` if there are not so many.
    """
    relevant = np.flatnonzero(held.relevant(question))
    votes = held.votes[relevant][:, question.slice]
    fractions = votes[:, answer] / votes.sum(axis=1)
    order = relevant[np.lexsort((held.galaxies["id_str"].to_numpy(str)[relevant], fractions))]
    if len(order) <= count:
        return order
    return order[np.linspace(0, len(order) - 1, 2 * count + 1).round().astype(int)[1::2]]


def draw_posteriors(held, name, answers, outputs, count=6):
    """Draw posteriors by model and pass beside the galaxies (Walmsley et al. 2022, figures 11 and 12).

    Args:
        held: `HeldOut`.
        name: name of the question.
        answers: which of its answers to draw, e.g. ["yes"].
        outputs: paths to write, png.
        count: number of galaxies.
    """
    question = held.question(name)
    positions = [question.answers.index(answer) for answer in answers]
    galaxies = spread_galaxies(held, question, positions[0], count)
    across = 2 if len(answers) == 1 else 1
    down = max(-(-len(galaxies) // across), 1)
    widths = [1, *[1.6] * len(answers)] * across
    size = (2.7 * sum(widths), 2.7 * down + 1.3)
    with drawing(outputs, figsize=size, layout="constrained") as figure:
        if not len(galaxies):
            write_message(
                figure, f"No galaxy has enough votes on '{in_words(name)}'; lower evaluate.min_votes."
            )
            return
        panels = figure.subplots(down, len(widths), squeeze=False, width_ratios=widths)
        cells = panels.reshape(down * across, -1)
        for row, galaxy in zip(cells, galaxies, strict=False):
            _draw_galaxy(row, held, galaxy, question, positions)
        for row in cells[len(galaxies) :]:
            for panel in row:
                panel.set_axis_off()
        if len(answers) > 1:
            for panel, answer in zip(panels[0, 1:], answers, strict=True):
                panel.set_title(in_words(answer), loc="left")
        samples = held.values.shape[2] // held.per_sample
        lines = [figure.axes[1].plot([], [], color=COLORS[m % 6], lw=2)[0] for m in range(held.members)]
        lines += figure.axes[1].plot([], [], color=INK, lw=3)
        lines += figure.axes[1].plot([], [], color=INK, ls="--", lw=1.5)
        labels = [f"model {number + 1}" for number in range(held.members)]
        labels[0] += (
            f" ({samples // held.members} passes each)" if held.members > 1 else f" ({samples} passes)"
        )
        labels += ["mixture of all", "the volunteers' votes"]
        figure.legend(lines, labels, loc="outside upper left", ncols=len(lines), fontsize=13)
        drawn = in_words(answers[0]).lower() if len(answers) == 1 else "each answer"
        figure.supxlabel(f"{in_words(name)}: votes for {drawn}", fontsize=16)


def _draw_galaxy(row, held, galaxy, question, positions):
    picture, *panels = row
    picture.imshow(tile_pixels(held.galaxies.iloc[galaxy].to_dict()))
    picture.set_axis_off()
    values, votes = held.values[galaxy, question.slice], held.votes[galaxy, question.slice]
    total, weights = int(votes.sum()), held.shares(question)
    samples = values.shape[1] // held.per_sample
    members = np.repeat(range(held.members), samples // held.members)
    shares = None if weights is None else weights[galaxy]
    for panel, position in zip(panels, positions, strict=True):
        chosen = values[position]
        pair = np.stack([chosen, values.sum(axis=0) - chosen])
        each = vote_predictions(pair, total, held.kind, shares, held.per_sample)
        for member, line in zip(members, each, strict=True):
            panel.plot(line, color=COLORS[member % 6], lw=1, alpha=0.45)
        panel.plot(each.mean(axis=0), color=INK, lw=3)
        panel.axvline(votes[position], color=INK, ls="--", lw=1.5)
        panel.set_xlim(0, total)
        panel.set_ylim(0, None)
        panel.set_yticks([])
        panel.spines["left"].set_visible(False)
        given = f"{votes[position]:g} of {total} votes"
        place = {"transform": panel.transAxes, "ha": "right", "va": "top", "bbox": BEHIND}
        panel.text(0.98, 0.98, given, fontsize=11, color=FAINT, **place)
