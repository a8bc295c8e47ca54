"""The stage search in the pipeline: two searches, a round of answers, and wrong ones.

All searches of the example run in tests/documents/test_tutorials.py.
"""

import pandas as pd
import pytest
import yaml
from PIL import Image
from pipeline import REPO, TEST, overlay, planned, snakemake


@pytest.fixture
def searched(edited):
    """The finished run, and two searches; (repository, arguments)."""
    content = yaml.safe_load((REPO / "examples/search.yaml").read_text())
    (rings,) = [entry for entry in content["search"] if entry["name"] == "rings"]
    names = sorted(pd.read_parquet(edited / "results/test/catalog/test.parquet")["id_str"])
    rings["examples"] = names[: len(rings["examples"])]
    # A split is predicted from its shards, and its images are where the catalogue says.
    content["search"] = [rings, {"name": "odd_of_test", "target": "test", "how": "odd"}]
    return edited, (*TEST, overlay(edited, "search", content))


def test_searches_and_a_round_of_answers(searched):
    repo, arguments = searched
    jobs = {"list_galaxies": 1, "predict_chunk": 1, "collect_representations": 2}
    jobs |= {"search_galaxies": 2, "draw_search": 2}
    assert planned(repo, *arguments, "--", "search") == jobs
    _, shown = snakemake(repo, *arguments, "--", "search")
    assert "Traceback" not in shown
    said = (repo / "logs/test/search_galaxies/rings.log").read_text()
    assert "my_answers.csv is not there yet: fill in the column answer of" in said
    folder = repo / "results/test/search"
    for name in ("rings", "odd_of_test"):
        with Image.open(folder / name / "gallery.png") as image:
            assert image.width >= 1200
    assert len(pd.read_csv(folder / "rings/ranked.csv")) == 400
    # A user fills in the first answers.
    following = pd.read_csv(folder / "rings/next.csv", dtype=str)
    following.assign(answer=["yes", "no", *[None] * (len(following) - 2)]).to_csv(repo / "my_answers.csv")
    assert planned(repo, *arguments, "--", "search") == {"search_galaxies": 1, "draw_search": 1}
    snakemake(repo, *arguments, "--", "more")
    again = pd.read_csv(folder / "rings/next.csv", dtype=str)
    assert not set(following["id_str"][:2]) & set(again["id_str"])
    assert planned(repo, *arguments, "--", "search") == {}
    (repo / "my_answers.csv").write_text("id_str,answer\nnobody,yes\n")
    status, shown = snakemake(repo, *arguments, "--", "more", check=False)
    assert status and "my_answers.csv: 1 of 1 galaxies are not in" in shown and "Traceback" not in shown


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"target": "nowhere"},
            r"search[0].target is 'nowhere', expected a target of predict.targets (test,",
        ),
        ({"how": "map"}, "search[0].examples: map has 2 names, expected"),
        ({"examples": []}, "search[0].examples: similar has none, expected"),
        ({"how": "nearest"}, "search[0].how is 'nearest'"),
        ({"answers": "a.csv"}, "search[0].answers is 'a.csv', but only how 'more' and 'odd' use answers"),
        ({"examples": "results/test/search/like_these/next.csv"}, "next.csv', which a search writes again"),
        (
            {"how": "more", "answers": "results//test/search/rings/next.csv"},
            "search[0].answers is 'results//test/search/rings/next.csv', which a search writes again",
        ),
    ],
)
def test_a_wrong_search_is_a_message(completed, tmp_path, change, message):
    content = yaml.safe_load((REPO / "examples/search.yaml").read_text())
    content["search"][0] |= change
    _, shown = snakemake(completed, *TEST, overlay(tmp_path, "wrong", content), "-n", check=False)
    assert message in shown and "Traceback" not in shown
