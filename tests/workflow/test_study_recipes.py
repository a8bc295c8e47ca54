"""The study of recipes: what a cell sees, and that a stopped study goes on where it was."""

import numpy as np
import pandas as pd
import pytest
import study_recipes as study


@pytest.fixture
def galaxies():
    generator = np.random.default_rng(0)
    names = [f"J{number:03d}" for number in range(400)]
    truth = pd.DataFrame({"disc": 1, "axis_ratio": 0.9}, names).assign(
        **{name: generator.uniform(size=400) for name in ("ring_strength", "bar_strength", "bulge_share")},
        **{name: generator.uniform(size=400) for name in ("disturbance", "spiral_strength")},
    )
    # The first feature says nearly all that is asked.
    features = pd.DataFrame(generator.normal(size=(400, 4)), names)
    features[0] = truth["bulge_share"]
    votes = pd.DataFrame(generator.integers(0, 9, (400, 6)), names, study.TREE.columns)
    return study.Galaxies(features, truth, votes, "checksum")


@pytest.mark.parametrize("task", study.LABELS)
@pytest.mark.parametrize("count", [20, 100])
def test_a_cell_has_as_many_labels_as_it_says(galaxies, task, count):
    label, table = study.LABELS[task], study.labelled(galaxies, task)
    parts = study.parts_of(table, label, min(count, len(table) // 2), 1)
    seen = [set(parts[split]["id_str"]) for split in ("train", "val", "test")]
    assert len(seen[0]) + len(seen[1]) == min(count, len(table) // 2)
    assert not (seen[0] | seen[1]) & seen[2] and not seen[0] & seen[1]
    if task in ("rings", "bars"):
        assert table[label.name].mean() == 0.5 and parts["val"][label.name].nunique() == 2
    truth = parts["test"][label.targets].to_numpy(float)
    found = study.score(label, truth, study.constant(label, parts))
    assert np.isfinite(found) and (label.kind != "regression" or found <= 0)


def test_a_stopped_study_goes_on(galaxies, tmp_path, monkeypatch):
    learned = []

    def learn(recipe, label, features, parts, seed):
        learned.append(seed)
        if len(learned) == 4:
            raise KeyboardInterrupt
        return parts["test"][label.targets].to_numpy(float)

    monkeypatch.setattr(study, "read_galaxies", lambda run: galaxies)
    monkeypatch.setattr(study, "learn", learn)
    with pytest.raises(KeyboardInterrupt):
        study.cells(tmp_path, ["bulge"], [20], 1)
    table = study.cells(tmp_path, ["bulge"], [20], 1).set_index("recipe")["score"]
    assert len(learned) == len(study.RECIPES) + 1
    assert table["`recommended`"] == 1 and table["constant"] <= 0 and table["linear probe"] > 0.5
    study.cells(tmp_path, ["bulge"], [20], 1)
    assert len(learned) == len(study.RECIPES) + 1
    assert len(study.lines_of(study.cells(tmp_path, ["bulge"], [20], 1))) == 3
