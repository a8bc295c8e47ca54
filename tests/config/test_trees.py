import json
import os
import re
import subprocess
import sys

import pandas as pd
import pytest
from zoolib.config.questions import featured_answers
from zoolib.config.trees import DecisionTree
from zoolib.figures import tree as figure
from zoolib.job.logs import UserError

# {name: (questions, answers, suffix)}
CAMPAIGNS = {
    "gz2": (10, 30, "gz2"),
    "gz_candels": (11, 32, "candels"),
    "gz_cosmic_dawn": (13, 45, "cd"),
    "gz_decals_1_2": (10, 30, "dr12"),
    "gz_decals_5": (10, 34, "dr5"),
    "gz_decals_8": (10, 34, "dr8"),
    "gz_desi": (10, 34, ""),
    "gz_euclid": (13, 46, "euclid"),
    "gz_hubble": (12, 34, "hubble"),
    "gz_jwst_ceers": (12, 39, "jwst"),
    "gz_jwst_cosmos": (11, 36, "jwst"),
    "gz_ukidss": (10, 30, "ukidss"),
    "rings": (1, 2, ""),
}
# The names of the published list of trees, where they are others.
LISTED = {"gz_decals_1_2": "decals_dr12", "gz_decals_5": "decals_dr5", "gz_decals_8": "decals_dr8"}

BAR = {
    "name": "small",
    "questions": {
        "shape": {"answers": ["smooth", "disk"]},
        "bar": {"answers": ["yes", "no"], "after": "shape_disk"},
    },
}


def with_questions(**questions):
    return {"name": "small", "questions": {**BAR["questions"], **questions}}


def with_cut(answers=("bar_yes",), **limits):
    return {**BAR, "cuts": {"barred": {"answers": answers, **limits}}}


def test_columns_slices_and_parents():
    tree = DecisionTree.from_dict(BAR)
    shape, bar = tree.questions
    assert tree.columns == ["shape_smooth", "shape_disk", "bar_yes", "bar_no"]
    assert tree.columns[bar.slice] == bar.columns == ["bar_yes", "bar_no"]
    assert (tree.parents(shape), tree.parents(bar)) == ([], [1])


def load(repo, name):
    return DecisionTree.load(repo / "config" / "trees" / f"{name}.yaml")


def after(tree, name):
    return next(question.after for question in tree.questions if question.name == name)


def test_every_campaign_has_a_tree(repo):
    assert {path.stem for path in (repo / "config" / "trees").glob("*.yaml")} == set(CAMPAIGNS)


@pytest.mark.parametrize("name", CAMPAIGNS)
def test_the_campaigns_trees_are_read(repo, name):
    tree = load(repo, name)
    questions, answers, suffix = CAMPAIGNS[name]
    assert (tree.name, len(tree.questions), len(tree.columns)) == (name, questions, answers)
    assert tree.suffix == suffix and {question.campaign for question in tree.questions} == {name}
    again = DecisionTree.from_dict(tree.to_dict(published=True))
    assert again == tree and again.published == tree.published and again.cuts == tree.cuts
    assert "published" not in tree.to_dict()
    for naming in tree.published.values():
        assert set(naming) == set(tree.columns)


@pytest.mark.parametrize("name", sorted(set(CAMPAIGNS) - {"rings"}))
def test_every_campaign_asks_first_for_features(repo, name):
    tree = load(repo, name)
    featured, others = featured_answers(tree.questions[0])
    assert tree.columns[featured].startswith("smooth-or-featured_feature")
    assert [tree.columns[place] for place in others] == ["smooth-or-featured_smooth"]


def test_what_leads_to_what(repo):
    trees = {name: load(repo, name) for name in CAMPAIGNS}
    for name in ("gz2", "gz_ukidss"):
        # Only volunteers who see a disk from its face are asked for arms.
        assert after(trees[name], "has-spiral-arms") == ("disk-edge-on_no",)
        assert after(trees[name], "something-odd") == ()
    for name in ("gz_hubble", "gz_candels"):
        assert after(trees[name], "spiral-winding") == ("has-spiral-arms_yes",)
        assert after(trees[name], "disk-edge-on") == ("clumpy-appearance_no",)
    assert after(trees["gz_euclid"], "artifact") == ("problem_artifact",)
    assert after(trees["gz_jwst_ceers"], "clumps") == ()
    assert after(trees["gz_cosmic_dawn"], "clumps") == ("disk-edge-on_no",)
    assert "how-rounded_completely" in trees["gz_decals_1_2"].columns
    assert "ghost" in trees["gz_euclid"].questions[-1].answers


@pytest.mark.parametrize("name", CAMPAIGNS)
def test_the_trees_are_those_that_are_listed(repo, name):
    folder = (repo / os.environ.get("ZOO_REAL_DATA", "../shared/data")).resolve().parent
    listed = folder / "facts" / "decision_trees.json"
    if not listed.is_file():
        pytest.skip(f"no list of trees, {listed}")
    entry = json.loads(listed.read_text())[LISTED.get(name, name)]
    dependencies = entry.get("corrected_dependencies", entry["dependencies"])
    tree, suffix = load(repo, name), CAMPAIGNS[name][2]
    shorten = {f"{question}-{suffix}": question for question in (q.name for q in tree.questions)}

    def short(column):
        question, _, answer = column.partition("_")
        return f"{shorten.get(question, question)}_{answer}"

    pairs = {shorten.get(question, question): answers for question, answers in entry["pairs"].items()}
    assert {question.name: list(question.answers) for question in tree.questions} == pairs
    for question, parent in dependencies.items():
        found = after(tree, shorten.get(question, question))
        assert found == ((short(parent),) if parent else ())


def test_the_paper_s_cuts(repo):
    cuts = {cut.name: cut for cut in load(repo, "gz_decals_5").cuts}
    assert len(cuts) == 22
    either = cuts["strong-or-weak-bar"]
    assert either.answers == ("bar_strong", "bar_weak")
    assert (either.above, either.below, either.votes) == (0.6, None, 20)
    assert (cuts["no-spiral"].above, cuts["no-spiral"].below) == (None, 0.3)


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
        (with_questions(**{"Is there a bar?": {"answers": ["yes", "no"]}}), ["'Is there a bar?'", "letters"]),
        (with_questions(bar={"answers": ["a/b", "no"]}), ["'a/b'", "question 'bar'", "letters"]),
        ({**BAR, "suffix": "dr_5"}, ["suffix 'dr_5'", "letters, digits and -"]),
        (with_cut(above=0.5, below=0.2), ["cut 'barred'", "one of them"]),
        (with_cut(), ["cut 'barred'", "above or below"]),
        (with_cut(above=50), ["cut 'barred'", "above 50", "from 0 to 1"]),
        (with_cut(above=True), ["cut 'barred'", "above True"]),
        (with_cut(above=0.5, votes=-1), ["cut 'barred'", "votes -1"]),
        (with_cut(above=0.5, answers=["bar_yes", "shape_disk"]), ["bar_yes, shape_disk", "one question"]),
        (with_cut(above=0.5, answers=["bar_yes", "bar_yes"]), ["different answers"]),
        (with_cut(above=0.5, answers=[]), ["adds up nothing"]),
        (with_cut(above=0.5, answers=[1]), ["list 'answers'", "[1]"]),
        (with_cut(abov=0.5), ["cut 'barred'", "'abov'"]),
        ({**BAR, "cuts": ["barred"]}, ["'cuts'", "map names"]),
        ({"name": "empty", "questions": {}}, ["at least one question"]),
        ({**BAR, "name": "my / tree"}, ["'my / tree'", "letters"]),
        (with_questions(bar={"answers": ["yes", "no"], "after": ["shape_disk"] * 2}), ["'bar'", "twice"]),
        (with_questions(bar={"answers": ["yes", None]}), ["'bar'", "blank"]),
        (with_questions(total={"answers": ["yes", "no"]}), ["'total'", "something else"]),
        (with_questions(bar={"answers": ["all", "no"]}), ["'all'", "something else"]),
        (with_questions(id={"answers": ["str", "b"]}), ["'id_str'", "something else"]),
        ({**BAR, "published": {"mine": {"bar_yes": 5}}}, ["published.mine", "'bar_yes' to 5"]),
        ({**BAR, "published": {"mine": {"bar_yes": "bar_no"}}}, ["'bar_yes' and 'bar_no'", "same column"]),
        ({"name": "empty"}, ["'questions'"]),
        (["shape"], ["'questions'"]),
    ],
)
def test_a_wrong_tree_is_one_message(content, words):
    with pytest.raises(UserError) as caught:
        DecisionTree.from_dict(content, "trees/small.yaml")
    assert str(caught.value).startswith("trees/small.yaml: ")
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def test_a_file_that_is_missing_or_not_yaml(tmp_path):
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


def test_a_duplicate_question_is_not_dropped(tmp_path):
    tree = tmp_path / "tree.yaml"
    tree.write_text(
        "questions:\n  arms: {answers: [few, many]}\n  bar: {answers: [a, b]}\n  arms: {answers: [c, d]}\n"
    )
    with pytest.raises(UserError, match="line 4 .*'arms' is a duplicate key"):
        DecisionTree.load(tree)


@pytest.mark.parametrize(
    "name, file",
    [
        ("gz_decals_1_2", "gz_decals_record/gz_decals_volunteers_1_and_2.csv"),
        ("gz_decals_5", "gz_decals_record/gz_decals_volunteers_5.csv"),
        ("gz2", "gz2_stripe82.csv"),
    ],
)
def test_votes_are_found_in_the_published_tables(repo, real_data, name, file):
    header = list(pd.read_csv(real_data / file, nrows=0).columns)
    tree = load(repo, name)
    found = tree.vote_columns(header, file)
    assert list(found) == tree.columns and len(set(found.values())) == len(tree.columns)
    others = set(CAMPAIGNS) - {name, "gz_decals_8", "gz_desi", "gz_decals_5"}
    for other in others:
        with pytest.raises(UserError, match=f"vote columns of the tree '{other}' are missing"):
            load(repo, other).vote_columns(header, file)


def test_votes_are_found_in_tables_of_several_campaigns(repo):
    header = ["id_str", "smooth-or-featured-gz2_smooth"]
    for name in ("gz_decals_1_2", "gz_decals_5", "gz_decals_8"):
        header += [
            column for q in load(repo, name).questions for column in q.columns_with(CAMPAIGNS[name][2])
        ]
    for name in ("gz_decals_1_2", "gz_decals_5", "gz_decals_8"):
        tree = load(repo, name)
        found = tree.vote_columns(header, "all.parquet")
        assert found["bar_no"] == f"bar-{tree.suffix}_no" and list(found) == tree.columns
    with pytest.raises(UserError, match="30 vote columns"):
        load(repo, "gz2").vote_columns(header, "all.parquet")


def test_one_tree_of_several_campaigns(repo):
    old, new = load(repo, "gz_decals_1_2"), load(repo, "gz_decals_5")
    both = DecisionTree.union([old, new, old])
    assert both.name == "gz_decals_1_2+gz_decals_5" and len(both.columns) == 30 + 34
    assert both.columns_of("gz_decals_5") == [
        column for question in new.questions for column in question.columns_with("dr5")
    ]
    assert after(both, "bar-dr12") == ("disk-edge-on-dr12_no",)
    bar = next(question for question in both.questions if question.name == "bar-dr5")
    assert bar.campaign == "gz_decals_5" and both.first(bar).name == "smooth-or-featured-dr5"
    assert [column.split("_")[0] for column in both.first_columns[::3]] == [
        "smooth-or-featured-dr12",
        "smooth-or-featured-dr5",
    ]
    assert {cut.name for cut in both.cuts} == {f"{cut.name}-dr5" for cut in new.cuts}
    again = DecisionTree.from_dict(json.loads(json.dumps(both.to_dict(published=True))))
    assert again == both and again.cuts == both.cuts
    assert DecisionTree.union([new, new]) is new


def test_trees_without_different_suffixes_are_told_apart_by_their_names(repo):
    ceers, cosmos = load(repo, "gz_jwst_ceers"), load(repo, "gz_jwst_cosmos")
    both = DecisionTree.union([ceers, cosmos])
    assert {"clumps-gz_jwst_ceers", "clumps-gz_jwst_cosmos"} < {question.name for question in both.questions}
    assert "ring-rings_yes" in DecisionTree.union([load(repo, "gz2"), load(repo, "rings")]).columns
    with pytest.raises(UserError, match="two different trees are called 'small'"):
        DecisionTree.union([DecisionTree.from_dict(BAR), DecisionTree.from_dict(with_questions(odd=ODD))])


ODD = {"answers": ["yes", "no"], "after": ["shape_smooth", "bar_yes", "bar_no"]}
PRINTED = """\
small: 3 questions, 6 answers
  shape
    = smooth
        odd: yes, no
    = disk
        bar
          = yes
              odd, as above
          = no
              odd, as above"""


def test_a_tree_prints_itself(repo, tmp_path):
    assert str(DecisionTree.from_dict(with_questions(odd=ODD))) == PRINTED
    (tmp_path / "small.yaml").write_text(json.dumps(with_questions(odd=ODD)))
    (tmp_path / "wrong.yaml").write_text("questions: {}")

    def show(*names):
        command = [sys.executable, "-m", "zoolib.config.trees", *map(str, names)]
        where = repo / "workflow" / "scripts"
        return subprocess.run(command, cwd=where, capture_output=True, text=True)

    assert show(tmp_path / "small.yaml", "rings").stdout == PRINTED + (
        "\nGalaxy Zoo rings: 1 question, 2 answers\n  ring: yes, no\n"
    )
    wrong = show(tmp_path / "wrong.yaml")
    assert wrong.returncode == 1
    assert (
        wrong.stderr
        == f"{tmp_path / 'wrong.yaml'}: a tree needs at least one question, found none; add one.\n"
    )


def drawn(tree):
    """The boxes (left, top, right, bottom) of a figure, and the lanes of its arrows."""
    places, lanes, size = figure._places(tree)
    boxes = {}
    for question in tree.questions:
        level, top = places[question.name]
        left = figure._left(level)
        boxes[question.name] = (left, top, left + figure.WIDTH, top + figure._height(question))
    return boxes, lanes, size


def test_boxes_stand_apart_and_behind_their_parents(repo):
    trees = [load(repo, name) for name in CAMPAIGNS]
    trees += [DecisionTree.union(trees), DecisionTree.from_dict(with_questions(odd=ODD))]
    for tree in trees:
        boxes, lanes, (width, height) = drawn(tree)
        assert max(box[2] for box in boxes.values()) == pytest.approx(width)
        assert max(box[3] for box in boxes.values()) == pytest.approx(height)
        for name, (left, top, right, bottom) in boxes.items():
            for other, box in boxes.items():
                apart = box[0] >= right or box[2] <= left or box[1] >= bottom or box[3] <= top
                assert apart or other == name, (tree.name, name, other)
            assert all(at != left or not top <= y <= bottom for way in lanes.values() for at, y in way)
        owner = {column: question.name for question in tree.questions for column in question.columns}
        for question in tree.questions:
            for column in question.after:
                assert boxes[owner[column]][2] < boxes[question.name][0]


def test_a_drawing_says_all_questions_and_answers(tmp_path):
    tree = DecisionTree.from_dict(with_questions(odd=ODD))
    figure.draw_tree(tree, [tmp_path / "tree.svg", tmp_path / "tree.png"])
    text = (tmp_path / "tree.svg").read_text()
    said = re.findall(r"<!-- (.*?) -->", text)
    assert sorted(said) == sorted(
        ["small", "3 questions, 6 answers", "Shape", "Smooth", "Disk", "Bar", "Odd"] + 2 * ["Yes", "No"]
    )
    # The line of an arrow, one for each answer that leads on.
    assert len(re.findall(r"fill: none; stroke: #222222", text)) == 4
    assert (tmp_path / "tree.png").stat().st_size > 5000
