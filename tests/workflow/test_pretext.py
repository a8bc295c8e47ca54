"""An ensemble that learns from votes and views, in the pipeline."""

import json

import pandas as pd
import yaml
from pipeline import REPO, TEST, overlay, planned, snakemake


def test_the_example_learns_from_votes_and_views(edited):
    content = yaml.safe_load((REPO / "examples/pretext.yaml").read_text())
    del content["run"]
    arguments = (*TEST, overlay(edited, "pretext", content))
    jobs = planned(edited, *arguments)
    assert jobs["train_member"] == 1 and "write_shard" not in jobs
    model = edited / "results/test/train/metrics/0/model.json"
    _, shown = snakemake(edited, *arguments, "--", model.relative_to(edited))
    assert "Traceback" not in shown
    about = json.loads(model.read_text())
    assert about["kind"] == "concentrations" and about["training"]["pretext"] == "vicreg"
    assert {"val_loss", "val_loss_bar", "val_views_loss"} <= set(pd.read_csv(model.parent / "history.csv"))
    assert "train_member" not in planned(edited, *arguments)
