"""Decision trees as figures: a box for each question and arrows from its answers to further questions."""

import textwrap

from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.path import Path

from zoolib.figures.style import FAINT, INK, drawing
from zoolib.job.words import in_words

# In inches.
WIDTH, LINE, ACROSS, DOWN, MARGIN, HEADER = 2.15, 0.27, 0.75, 0.3, 0.3, 0.95
# Height of a lane for an arrow that passes the questions of a level.
LANE = 0.2
LETTERS_A_LINE = 19
# The colour says how many questions come before (as in the paper's figure 4).
LEVELS = ("#d9d9d9", "#b8e0d2", "#b5d3ec", "#d8c6e6", "#f5d2b3", "#f3c3c9")


def draw_tree(tree, outputs):
    """Draw a decision tree (Walmsley et al. 2022, figures 4 and A1).

    Questions that all volunteers are asked are at the left; each step to the right is one question later.

    Args:
        tree: a `DecisionTree`; a question may follow several answers.
        outputs: paths to write, svg or png.
    """
    places, lanes, (width, height) = _places(tree)
    size = (width + 2 * MARGIN, height + HEADER + MARGIN)
    with drawing(outputs, figsize=size) as figure:
        panel = figure.add_axes((0, 0, 1, 1))
        panel.set_axis_off()
        panel.set(xlim=(-MARGIN, width + MARGIN), ylim=(height + MARGIN, -HEADER))
        panel.text(0, 0.3 - HEADER, tree.title, fontsize=18, va="center")
        plural = "s" if len(tree.questions) > 1 else ""
        subtitle = f"{len(tree.questions)} question{plural}, {len(tree.columns)} answers"
        panel.text(0, 0.62 - HEADER, subtitle, fontsize=12, va="center", color=FAINT)
        ends = {}
        for question in tree.questions:
            ends |= _draw_question(panel, question, *places[question.name])
        for question in tree.questions:
            level, top = places[question.name]
            end = _left(level), top + LINE * len(_title(question)) / 2 + 0.05
            for column in question.after:
                _draw_arrow(panel, ends[column], lanes[column, question.name], end)


def _places(tree):
    """{question: (level, top)}, {(answer, question): lanes between them}, and the size of the tree."""
    owner = {column: question.name for question in tree.questions for column in question.columns}
    levels = {}
    for question in tree.questions:
        levels[question.name] = max((levels[owner[column]] + 1 for column in question.after), default=0)
    places, lanes, free = {}, {}, dict.fromkeys(levels.values(), 0.0)

    def place(question, top):
        if question.name in places:
            return
        level = levels[question.name]
        # As high as there is space, so that the questions of a level are in the order of the arrows.
        top = max(top, free[level])
        places[question.name] = level, top
        free[level] = top + _height(question) + DOWN
        for column in question.columns:
            for following in (other for other in tree.questions if column in other.after):
                passed = range(level + 1, levels[following.name])
                lanes[column, following.name] = [(_left(other), lane(other, top)) for other in passed]
                # The parent in the level before decides where a question stands.
                if not passed:
                    place(following, top)

    def lane(level, top):
        top = max(top, free[level])
        free[level] = top + LANE
        return top

    for question in tree.questions:
        if not question.after:
            place(question, 0.0)
    return places, lanes, (_left(max(free)) + WIDTH, max(free.values()) - DOWN)


def _left(level):
    return level * (WIDTH + ACROSS)


def _title(question):
    return textwrap.wrap(in_words(question.name), LETTERS_A_LINE)


def _height(question):
    return LINE * (len(_title(question)) + len(question.answers)) + 0.2


def _draw_question(panel, question, level, top):
    """Draw a box; returns {column of an answer: where its arrows start}."""
    left, title, height = _left(level), _title(question), _height(question)
    of_title = LINE * len(title) + 0.1
    frame = FancyBboxPatch(
        (left, top), WIDTH, height, boxstyle="round,pad=0,rounding_size=0.08", fc="white", ec=FAINT, lw=1.2
    )
    panel.add_patch(frame)
    head = panel.add_patch(FancyBboxPatch((left, top), WIDTH, of_title, boxstyle="square,pad=0", lw=0))
    head.set(facecolor=LEVELS[level % len(LEVELS)], clip_path=frame)
    middle = left + WIDTH / 2
    panel.text(middle, top + of_title / 2, "\n".join(title), ha="center", va="center", fontsize=13)
    ends = {}
    for number, (answer, column) in enumerate(zip(question.answers, question.columns, strict=True)):
        down = top + of_title + LINE * (number + 0.5) + 0.05
        panel.text(middle, down, in_words(answer), ha="center", va="center", fontsize=12)
        ends[column] = (left + WIDTH, down)
    return ends


def _draw_arrow(panel, start, lanes, end):
    """Draw an S-shaped arrow from an answer to a question; lanes lead it past other questions."""
    points, codes = [start], [Path.MOVETO]
    stops = [point for left, y in lanes for point in ((left, y), (left + WIDTH, y))] + [end]
    for number, (x, y) in enumerate(stops):
        before = points[-1]
        bend = 0 if number % 2 else ACROSS * 0.55
        points += [(before[0] + bend, before[1]), (x - bend, y), (x, y)]
        codes += [Path.CURVE4] * 3
    arrow = FancyArrowPatch(
        path=Path(points, codes), arrowstyle="-|>", mutation_scale=14, color=INK, lw=1.3, zorder=0.5
    )
    panel.add_patch(arrow)
