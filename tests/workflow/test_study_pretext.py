"""The study of votes and views: its cells and its table, without a training."""

import pandas as pd
import study_pretext as study
import study_recipes as frozen


def test_each_seed_starts_from_a_pretraining_of_its_own(tmp_path, monkeypatch):
    for ensemble in ("metrics", "both"):
        for member in range(2):
            folder = tmp_path / "train" / ensemble / str(member)
            folder.mkdir(parents=True)
            (folder / "model.keras").write_text(f"{ensemble} {member}")
    table = pd.DataFrame({"id_str": [f"J{number}" for number in range(60)], "ring": [0, 1] * 30})
    learned = []

    def learn(run, start, settings, label, parts, seed, scratch):
        learned.append((start, seed, scratch))
        return parts["test"][label.targets].to_numpy(float)

    monkeypatch.setattr(frozen, "read_galaxies", lambda run: None)
    monkeypatch.setattr(frozen, "labelled", lambda galaxies, task: table)
    monkeypatch.setattr(study, "_learn", learn)
    found = study.cells(tmp_path, ["rings"], [20], 2)
    assert learned[:3] == [("metrics/0", 0, True), ("metrics/0", 0, False), ("both/0", 0, False)]
    assert {start.split("/")[1] for start, *_ in learned[3:]} == {"1"} and len(learned) == 6
    assert (found["score"] == 1).all()
    # What has ended is not trained again; another model is.
    study.cells(tmp_path, ["rings"], [20], 2)
    assert len(learned) == 6
    (tmp_path / "train/both/1/model.keras").write_text("another")
    study.cells(tmp_path, ["rings"], [20], 2)
    assert learned[6:] == [("both/1", 1, False)]


def test_gains_are_differences_of_the_same_seed():
    rows = [
        {"task": "rings", "labels": 100, "seed": seed, "recipe": arm, "score": 0.5 + 0.1 * seed + gain}
        for seed in range(3)
        for arm, gain in zip(study.ARMS, (0, 0.1, 0.4 + 0.01 * seed), strict=True)
    ]
    lines = study.gains(pd.DataFrame(rows))
    assert lines[0] == "- **votes**: +10.0 ± 0.0 (rings, 100)"
    assert lines[-1] == "- **votes and views**: +41.0 ± 1.0 (rings, 100)"
