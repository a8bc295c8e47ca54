"""Ensembles that learn from images without votes, in the pipeline."""

import json

import pandas as pd
import yaml
from pipeline import REPO, TEST, overlay, planned, snakemake


def test_the_example_learns_with_votes_and_without(edited):
    content = yaml.safe_load((REPO / "examples/pretext.yaml").read_text())
    del content["run"]
    arguments = (*TEST, overlay(edited, "pretext", content))
    jobs = planned(edited, *arguments)
    assert jobs["train_member"] == 2 and jobs["finetune_task"] == 1
    assert "write_shard" not in jobs and "build_catalog" not in jobs
    wanted = [f"results/test/train/{name}/0/model.json" for name in ("metrics", "unlabelled")]
    wanted.append("results/test/finetune/rings/model.json")
    status, shown = snakemake(edited, *arguments, "--", *wanted)
    assert "Traceback" not in shown
    both, alone, rings = (json.loads((edited / path).read_text()) for path in wanted)
    assert (both["kind"], alone["kind"], rings["kind"]) == ("concentrations", "features", "probabilities")
    # A target with archives has all galaxies, the shards those of one split.
    assert alone["training"]["galaxies"] == 380 and both["training"]["galaxies"] < 300
    assert rings["training"]["backbone"] == "tiny"
    history = pd.read_csv(edited / "results/test/train/metrics/0/history.csv")
    assert {"val_loss", "val_loss_bar"} <= set(history)
    assert "train_member" not in planned(edited, *arguments)
