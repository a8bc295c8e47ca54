"""How a workflow asks the questions of a tree: tasks and texts that are right, and those that are not."""

import pytest
from zoolib.config.trees import DecisionTree
from zoolib.config.workflows import read_workflow
from zoolib.job.logs import UserError

QUESTIONS = {
    "shape": {"answers": ["smooth", "featured-or-disk", "cant-tell"]},
    "arms": {"answers": ["1", "4", "more-than-4"], "after": "shape_featured-or-disk"},
    "bar": {"answers": ["yes", "no"], "after": "shape_featured-or-disk"},
}
TASKS = {"shape": "T0", "arms": "T1", "bar": "init"}
IMAGE = "![a.png](https://panoptes-uploads.zooniverse.org/production/a/f3-1a.png =60x)"


def tree(**zooniverse):
    return DecisionTree.from_dict(
        {"name": "mine", "questions": QUESTIONS, "zooniverse": zooniverse}, "my.yaml"
    )


def workflow(**zooniverse):
    found = tree(**zooniverse)
    return read_workflow(found.zooniverse, found.questions, "my.yaml")


@pytest.mark.parametrize(
    ("task", "text", "column"),
    [
        ("T0", "Smooth", "shape_smooth"),
        ("T0", f"{IMAGE} Smooth ", "shape_smooth"),
        ("T0", "**Smooth**", "shape_smooth"),
        ("T0", "Featured  or Disk", "shape_featured-or-disk"),
        ("T0", "Can't tell", "shape_cant-tell"),
        # What python-slugify makes of the same answers, for panoptes_aggregation.
        ("T0", "can-t-tell", "shape_cant-tell"),
        (
            "T0",
            "a-png-https-panoptes-uploads-zooniverse-org-production-a-f3-1a-png-60x-smooth",
            "shape_smooth",
        ),
        ("T1", "4", "arms_4"),
        ("T1", "4+", "arms_more-than-4"),
        ("init", "Oui", "bar_yes"),
        ("init", "Sí", "bar_yes"),
        ("init", "si", "bar_yes"),
        ("init", "no", "bar_no"),
        # An answer with texts of its own has no other.
        ("init", "Yes", None),
        ("T0", "4", None),
        ("T0", "unknown answer label", None),
    ],
)
def test_texts_of_volunteers_are_answers_of_the_tree(task, text, column):
    answers = {"arms_more-than-4": "4+", "bar_yes": ["Oui", "Sí"], "bar_no": False}
    assert workflow(tasks=TASKS, answers=answers).column(task, text) == column


def test_texts_that_differ_only_in_signs_are_told_apart():
    found = workflow(tasks=TASKS, answers={"arms_4": "= 4", "arms_more-than-4": "> 4"})
    assert [found.column("T1", text) for text in ("= 4", ">  4", "4")] == ["arms_4", "arms_more-than-4", None]


@pytest.mark.parametrize(
    ("zooniverse", "message"),
    [
        (
            {"tasks": {"shape": "T0"}},
            "zooniverse.tasks has no task for 'arms'; give each question of the tree",
        ),
        ({"tasks": {**TASKS, "rings": "T9"}}, "zooniverse.tasks has the unknown question 'rings'; give each"),
        ({"tasks": {**TASKS, "bar": "T0"}}, "zooniverse.tasks has 'T0' for two questions; fix one of them"),
        ({"tasks": "T0"}, "zooniverse.tasks has no task for 'arms'; give"),
        ({"task": TASKS}, "'zooniverse' needs the key tasks, and may have answers, found"),
        ({"tasks": TASKS, "answers": ["Smooth"]}, "zooniverse.answers must map answers to texts, found"),
        ({"tasks": TASKS, "answers": {"shape_round": "Round"}}, "has 'shape_round', which is not an answer"),
        ({"tasks": TASKS, "answers": {"shape_smooth": []}}, "has [] for 'shape_smooth', expected the text"),
        ({"tasks": TASKS, "answers": {"bar_yes": "No"}}, "gives 'bar_no' and 'bar_yes' the same text 'no'"),
    ],
)
def test_a_wrong_key_is_named(zooniverse, message):
    with pytest.raises(UserError) as error:
        tree(**zooniverse)
    assert str(error.value).startswith("my.yaml: ") and message in str(error.value)


def test_models_and_catalogues_do_not_depend_on_it():
    with_workflow, without = (
        tree(tasks=TASKS),
        DecisionTree.from_dict({"name": "mine", "questions": QUESTIONS}),
    )
    assert with_workflow == without
    assert with_workflow.to_dict(published=True) == without.to_dict(published=True)
