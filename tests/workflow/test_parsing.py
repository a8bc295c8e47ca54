"""Reading the workflow, which each job of a cluster does again, takes no longer with more images."""

import pytest
from pipeline import TEST, copy_of_the_repository, overlay, snakemake
from zoolib.data.image_folder import list_folder

# Python imports this module at its start; the file gets a line for each question about an image.
COUNTER = """
import functools, os
def counted(function):
    @functools.wraps(function)
    def ask(path, *others, **options):
        if str(path).endswith(".fits") and "results/" not in str(path):
            with open(os.environ["ASKED"], "a") as asked:
                print(path, file=asked)
        return function(path, *others, **options)
    return ask
os.stat, os.lstat, os.access = map(counted, (os.stat, os.lstat, os.access))
"""
RUN = {
    "run": "mine",
    "zenodo": {"simulate": None},
    "catalogs": [{"name": "a", "tree": "gz_decals_5", "table": "mine/votes.csv", "images": "mine/images"}],
    "predict": {
        "targets": [
            {"name": "test", "ensemble": "metrics", "split": "test"},
            {"name": "sky", "models": ["mine/model"], "images": "mine/images"},
        ]
    },
    "finetune": {"tasks": [{"name": "classes", "folders": "mine/classes", "pretrained": "mine/model"}]},
}
JOBS = {
    "everything": (),
    "a job": (
        "--target-jobs",
        "predict_chunk:run=mine,target=sky,chunk=0",
        "--allowed-rules",
        "predict_chunk",
    ),
}


@pytest.mark.parametrize("what", JOBS)
def test_no_single_image_is_asked_for(tmp_path, what, monkeypatch):
    repo = copy_of_the_repository(tmp_path / "repo")
    images = [f"images/{number}" for number in range(9)]
    images += [f"classes/{name}/{name}{number}" for name in "ab" for number in range(9)]
    files = [f"mine/{image}.fits" for image in images]
    files += ["mine/votes.csv", "mine/model/model.keras", "mine/model/model.json"]
    for file in files:
        (repo / file).parent.mkdir(parents=True, exist_ok=True)
        (repo / file).touch()
    if what == "a job":
        monkeypatch.chdir(repo)
        (repo / "results/mine/predict/sky").mkdir(parents=True)
        list_folder("mine/images", "name", 32, "results/mine/predict/sky/galaxies.parquet")
    (tmp_path / "sitecustomize.py").write_text(COUNTER)
    asked = tmp_path / "asked"
    _, shown = snakemake(
        repo,
        *("--dry-run", *TEST, overlay(tmp_path, "mine", RUN), *JOBS[what]),
        ASKED=str(asked),
        PYTHONPATH=str(tmp_path),
    )
    assert ("predict_chunk" in shown) and (("build_task_catalog" in shown) == (what == "everything"))
    assert not asked.exists(), asked.read_text()
