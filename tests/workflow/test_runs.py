"""The runs in config/: one has the paper's settings, the recommended one changes only what it says."""

import copy

import yaml
from snakemake.utils import update_config


def load(repo, name):
    return yaml.safe_load((repo / "config" / f"{name}.yaml").read_text())


def test_the_run_of_the_configuration_is_the_paper_s(repo):
    """Walmsley et al. 2022, section 5.1."""
    run = load(repo, "config")
    (catalog,) = run["catalogs"]
    assert (catalog["tree"], catalog["min_votes"]) == ("gz_decals_5", 3)
    assert len(catalog["archives"]) == 4
    assert run["split"] == {"train": 0.7, "val": 0.1, "test": 0.2, "group": None}
    assert {key: run["image"][key] for key in ("size", "crop", "final_size", "color")} == {
        "size": 300,
        "crop": 0.75,
        "final_size": 224,
        "color": False,
    }
    train, predict = run["train"], run["predict"]
    assert (train["backbone"], train["head"], train["augmentation"]) == (
        "EfficientNetB0",
        "dirichlet",
        "paper",
    )
    assert (train["batch_size"], train["patience"], train["learning_rate"]) == (128, 10, 0.001)
    assert train["ensembles"] == [
        {"name": "metrics", "members": 3, "splits": ["train"]},
        {"name": "catalog", "members": 5, "splits": ["train", "test"]},
    ]
    assert (predict["views"], predict["samples"]) == (5, 1)
    assert predict["targets"] == [
        {"name": "test", "ensemble": "metrics", "split": "test"},
        {"name": "everything", "ensemble": "catalog", "archives": "all"},
    ]


def test_the_recommended_run_reads_the_paper_s_galaxies_and_images(repo):
    paper = load(repo, "config")
    run = copy.deepcopy(paper)
    update_config(run, load(repo, "recommended"))
    for section in ("seed", "zenodo", "catalogs", "split", "image", "shards", "evaluate"):
        assert run[section] == paper[section]
    changed = {key for key in run["train"] if run["train"][key] != paper["train"][key]}
    assert changed == {"head", "mixed_precision"}
    assert (run["predict"]["views"], run["predict"]["samples"]) == (0, 30)
