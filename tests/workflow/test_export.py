"""The stage export in the pipeline: what it plans, what it writes, and what another licence writes again."""

import yaml
from pipeline import TEST, overlay, planned, snakemake

# The run has one member and one task, each with a recalibration.
ALL = {"export_model": 2, "export_recalibration": 2, "write_card": 2}


def test_a_finished_run_is_exported(edited):
    assert planned(edited, "export", *TEST) == ALL
    folder = edited / "results/test/export/finetune/ring"
    _, shown = snakemake(edited, *TEST, "--", f"{folder.relative_to(edited)}/README.md")
    assert "Traceback" not in shown
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    weights = {f"saved_model/variables/variables.{end}" for end in ("index", "data-00000-of-00001")}
    assert files == weights | {
        *("README.md", "checks.json", "model.json", "model.keras", "model.onnx"),
        *("saved_model/saved_model.pb", "saved_model/fingerprint.pb"),
    }
    text = (folder / "README.md").read_text()
    # The table of the run, and the labels of a simulated survey.
    assert "| split train | 32 |" in text and "it says nothing about the sky" in text
    assert "| ring | test | accuracy |" in text and "had learned from simulated galaxies" in text
    assert planned(edited, "export", *TEST) == {"export_model": 1, "export_recalibration": 2, "write_card": 1}
    licensed = overlay(edited, "licensed", {"export": {"licence": "CC-BY-4.0"}})
    arguments = (*TEST, licensed, "--", f"{folder.relative_to(edited)}/README.md")
    assert planned(edited, *arguments) == {"write_card": 1}
    snakemake(edited, *arguments)
    assert yaml.safe_load((folder / "README.md").read_text().split("---")[1])["license"] == "cc-by-4.0"
    assert planned(edited, *arguments) == {}


def test_a_run_without_scores_is_exported_without_predictions(edited):
    content = {"evaluate": {"target": None}, "finetune": {"tasks": []}}
    content["train"] = {"ensembles": [{"name": "metrics", "members": 2}]}
    without = overlay(edited, "without", content)
    jobs = planned(edited, "export", *TEST, without)
    # The second member is trained first, and an ensemble of two has a recalibration of its own.
    assert {rule: jobs[rule] for rule in ALL} == {**ALL, "export_recalibration": 3}
    assert jobs.keys() - ALL.keys() == {"train_member", "recalibrate_member", "recalibrate_ensemble"}
