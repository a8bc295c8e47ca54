import pytest
from zoolib.logs import UserError
from zoolib.trees import DecisionTree

BAR = {
    "name": "small",
    "questions": {
        "shape": {"answers": ["smooth", "disk"]},
        "bar": {"answers": ["yes", "no"], "after": "shape_disk"},
    },
}


def with_questions(**questions):
    return {"name": "small", "questions": {**BAR["questions"], **questions}}


def test_columns_slices_and_parents():
    tree = DecisionTree.from_dict(BAR)
    shape, bar = tree.questions
    assert tree.columns == ["shape_smooth", "shape_disk", "bar_yes", "bar_no"]
    assert tree.columns[bar.slice] == bar.columns == ["bar_yes", "bar_no"]
    assert (tree.parents(shape), tree.parents(bar)) == ([], [1])


@pytest.mark.parametrize(
    "name, questions, answers", [("gz_decals_5", 10, 34), ("gz2", 10, 30), ("rings", 1, 2)]
)
def test_the_campaigns_trees_are_read(repo, name, questions, answers):
    tree = DecisionTree.load(repo / "config" / "trees" / f"{name}.yaml")
    assert (tree.name, len(tree.questions), len(tree.columns)) == (name, questions, answers)
    again = DecisionTree.from_dict(tree.to_dict(published=True))
    assert again == tree and again.published == tree.published
    assert "published" not in tree.to_dict()
    for naming in tree.published.values():
        assert set(naming) == set(tree.columns)


def test_a_question_listed_before_its_parent_is_moved_behind_it():
    questions = dict(reversed(BAR["questions"].items()))
    tree = DecisionTree.from_dict({"name": "small", "questions": questions})
    assert tree == DecisionTree.from_dict(BAR)
    assert tree.columns[tree.questions[1].slice] == ["bar_yes", "bar_no"]


def test_bare_yes_and_no_are_words(tmp_path):
    file = tmp_path / "ring.yaml"
    file.write_text("questions: {ring: {answers: [yes, no]}, size: {answers: [1, 2], after: ring_yes}}")
    assert DecisionTree.load(file).columns == ["ring_yes", "ring_no", "size_1", "size_2"]


@pytest.mark.parametrize(
    "content, words",
    [
        (with_questions(bar={"answers": ["yes", "no"], "after": "shape_disc"}), ["bar", "shape_disc"]),
        (with_questions(shape={"answers": ["smooth", "disk"], "after": "bar_yes"}), ["shape, bar", "cycle"]),
        (with_questions(bar={"answers": ["yes", "no"], "after": "bar_no"}), ["bar", "cycle"]),
        (with_questions(bar={"answers": ["yes"]}), ["bar", "two or more", "yes"]),
        (with_questions(bar={"answers": ["yes", "yes"]}), ["bar", "different"]),
        (with_questions(bar={"answers": "yes"}), ["bar", "list"]),
        (with_questions(bar={"answers": ["yes", "no"], "afer": "shape_disk"}), ["bar", "'afer'"]),
        (with_questions(bar={"answers": ["yes", "no"], "after": 5}), ["bar", "'after'", "5"]),
        (with_questions(bar={"answers": ["yes", "no"], "after": [{"shape": "disk"}]}), ["bar", "'after'"]),
        (
            with_questions(shape_smooth={"answers": ["a", "b"]}, shape={"answers": ["smooth_a", "b"]}),
            ["share"],
        ),
        ({**BAR, "questons": {}}, ["questons"]),
        ({**BAR, 5: {}}, ["'5'"]),
        ({**BAR, "published": ["hart16"]}, ["published"]),
        ({**BAR, "published": {"other": {"bar_maybe": "x"}}}, ["published.other", "bar_maybe"]),
        ({"name": "empty", "questions": {}}, ["at least one question"]),
        ({"name": "empty"}, ["'questions'"]),
        (["shape"], ["'questions'"]),
    ],
)
def test_a_wrong_tree_is_told_in_one_sentence(content, words):
    with pytest.raises(UserError) as caught:
        DecisionTree.from_dict(content, "trees/small.yaml")
    assert str(caught.value).startswith("trees/small.yaml: ")
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_file_that_is_missing_or_no_yaml(tmp_path):
    (tmp_path / "other.yaml").write_text("{}")
    with pytest.raises(UserError, match="no such decision tree.*other"):
        DecisionTree.load(tmp_path / "small.yaml")
    (tmp_path / "small.yaml").write_text("questions: {\n  shape: [")
    with pytest.raises(UserError, match="not valid YAML in line 2"):
        DecisionTree.load(tmp_path / "small.yaml")
    (tmp_path / "small.yaml").write_bytes(b"\xff\xfe\xfa")
    with pytest.raises(UserError, match="not valid YAML"):
        DecisionTree.load(tmp_path / "small.yaml")


def test_votes_are_found_by_our_names_or_a_published_naming():
    naming = {"shape_smooth": "t01_a01", "shape_disk": "t01_a02"}
    tree = DecisionTree.from_dict({**BAR, "published": {"willett": naming}})
    ours = ["id_str", *tree.columns]
    theirs = ["t01_a01", "t01_a02", "bar_yes", "bar_no", "ra"]
    assert tree.vote_columns(ours, "a.csv") == {column: column for column in tree.columns}
    assert list(tree.vote_columns(theirs, "a.csv").values()) == theirs[:4]
    with pytest.raises(UserError, match="a.csv: 1 of the 4 vote columns.*bar_no"):
        tree.vote_columns(theirs[:3], "a.csv")


def test_a_question_that_stands_twice_is_not_dropped(tmp_path):
    tree = tmp_path / "tree.yaml"
    tree.write_text(
        "questions:\n  arms: {answers: [few, many]}\n  bar: {answers: [a, b]}\n  arms: {answers: [c, d]}\n"
    )
    with pytest.raises(UserError, match="line 4 .*'arms' stands there twice"):
        DecisionTree.load(tree)
