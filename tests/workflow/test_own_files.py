"""Files of one's own that a configuration names: a strategy, a tree, an augmentation. Edits train again."""

import shutil

import pytest
from pipeline import REPO, copy_of_the_repository, edit, overlay, planned, pretend

CONFIG = {
    "run": "own",
    "catalogs": [
        {"name": "a", "tree": "mine/tree.yaml", "table": "mine/a.csv", "images": "mine/a", "archives": []}
    ],
    "shards": {"count": {"train": 1, "val": 1, "test": 1}},
    "train": {"augmentation": "mine/views.yaml", "ensembles": [{"name": "metrics"}]},
    "predict": {"chunks": 1, "targets": [{"name": "test", "ensemble": "metrics", "split": "test"}]},
    "evaluate": {"published": None},
    "finetune": {
        "tasks": [
            {
                "name": "ring",
                "table": "mine/a.csv",
                "label": "ring",
                "images": "mine/a",
                "strategy": {"name": "own_strategies.TopOnly", "blocks": 2},
            },
            {
                "name": "own",
                "table": "mine/a.csv",
                "kind": "votes",
                "tree": "mine/labels.yaml",
                "images": "mine/a",
            },
        ]
    },
}
STRATEGY = """
from zoolib.config.strategies import Stage, Strategy

class TopOnly(Strategy):
    def __init__(self, blocks=1):
        self.blocks = blocks

    def stages(self, blocks, task):
        names = tuple(name for block in blocks[-self.blocks :] for name in block)
        return [Stage("top", names, task["epochs"], 0.1, None)]
"""
OWN_STRATEGY = "workflow/scripts/own_strategies.py"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A repository in which Snakemake takes the run for finished."""
    repo = copy_of_the_repository(tmp_path_factory.mktemp("own") / "repo")
    for file in ("mine/a.csv", "mine/a/1.png"):
        (repo / file).parent.mkdir(parents=True, exist_ok=True)
        (repo / file).touch()
    shutil.copy(REPO / "config/trees/gz_decals_5.yaml", repo / "mine/tree.yaml")
    (repo / "mine/labels.yaml").write_text("name: own\nquestions: {lens: {answers: [certain, possible]}}\n")
    shutil.copy(REPO / "config/augmentations/zoobot1.yaml", repo / "mine/views.yaml")
    # A folder that Python searches.
    (repo / OWN_STRATEGY).write_text(STRATEGY)
    pretend(repo, "--configfile", overlay(repo, "run", CONFIG))
    return repo


@pytest.mark.parametrize(
    ("file", "old", "new", "first"),
    [
        (OWN_STRATEGY, "class", "# A comment.\nclass", None),
        (OWN_STRATEGY, "0.1", "0.05", "finetune_task"),
        (OWN_STRATEGY, "blocks[-self.blocks :]", "blocks[: self.blocks]", "finetune_task"),
        ("mine/views.yaml", "steps:", "# A comment.\nsteps:", None),
        ("mine/views.yaml", "0.7,", "0.6,", "train_member"),
        ("mine/tree.yaml", "questions:", "# A comment.\nquestions:", None),
        ("mine/tree.yaml", "[smooth, featured-or-disk", "[featured-or-disk, smooth", "build_catalog"),
        ("mine/labels.yaml", "name:", "# A comment.\nname:", None),
        ("mine/labels.yaml", "possible", "perhaps", "build_task_catalog"),
    ],
)
def test_an_edit_runs_again_what_depends_on_it(run, tmp_path, file, old, new, first):
    repo = tmp_path / "repo"
    shutil.copytree(run, repo, symlinks=True)
    edit(repo / file, old, new)
    jobs = planned(repo, "--configfile", repo / "run.yaml")
    if first is None:
        assert jobs == {}
    else:
        assert first in jobs
        assert ("build_catalog" in jobs) == (first == "build_catalog")
