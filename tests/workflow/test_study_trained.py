"""The second part of the study of recipes: it trains as a task does, and what has ended stays."""

import pandas as pd
import pytest
import study_recipes as frozen
import study_trained as study
from zoolib import api
from zoolib.config.labels import Label
from zoolib.data.catalogs import read_catalog


@pytest.fixture
def run(tmp_path, stored, model_folder):
    """A run whose test galaxies are bright and faint ones in turn."""
    folder = tmp_path / "results" / "study_recipes"
    for place, content in {
        "catalog/test.parquet": stored / "train.parquet",
        "shards/test": stored / "train",
        "train/metrics/0": model_folder,
    }.items():
        (folder / place).parent.mkdir(parents=True, exist_ok=True)
        (folder / place).symlink_to(content)
    return folder


@pytest.fixture
def table(stored):
    names = read_catalog(stored / "train.parquet").table["id_str"]
    return pd.DataFrame({"id_str": names, "bright": [int(name[1:]) % 2 for name in names]})


@pytest.mark.parametrize("name", study.TRAINED)
def test_a_cell_has_the_settings_of_a_task(name, tmp_path, model_folder):
    strategy, head = study.TRAINED[name]
    (tmp_path / "by_class").mkdir()
    task = {"folders": str(tmp_path / "by_class"), "pretrained": str(model_folder), "head": head}
    of_task = api._run_of({"name": "study", **task, **study.STRATEGIES[strategy]}).training_of("study")
    assert study.settings_of(strategy, head) == of_task and of_task["batch_size"] is None


def test_a_training_learns_from_its_galaxies_and_answers_for_those_of_test(run, table):
    trainer, label = study.Trainer(run), Label("bright")
    parts = {"train": table[:20], "val": table[20:28], "test": table[28:].sample(frac=1, random_state=1)}
    found = trainer.learn(study.settings_of("two_stage", "recommended"), label, parts, seed=1)
    assert frozen.score(label, parts["test"][["bright"]].to_numpy(float), found) == 1


def test_a_stopped_study_goes_on(run, table, monkeypatch, capsys):
    trained = []

    def learn(self, settings, label, parts, seed):
        trained.append(settings["head"]["recipe"])
        if len(trained) == 3:
            raise KeyboardInterrupt
        return parts["test"][label.targets].to_numpy(float)

    galaxies = frozen.Galaxies(None, None, None, "checksum")
    monkeypatch.setattr(frozen, "read_galaxies", lambda run: galaxies)
    monkeypatch.setattr(frozen, "labelled", lambda galaxies, task: table.rename(columns={"bright": "ring"}))
    monkeypatch.setattr(study.Trainer, "learn", learn)
    with pytest.raises(KeyboardInterrupt):
        study.cells(run, ["rings"], [10], 1)
    assert capsys.readouterr().out.count("rings, 10 labels, seed 0") == 2
    found = study.cells(run, ["rings"], [10], 1)
    assert len(trained) == len(study.TRAINED) + 1 and (found["score"] == 1).all()
    assert list(found["recipe"]) == list(study.TRAINED)
    # Beside the cells of the frozen part, which have the same rows.
    known = found.assign(recipe="linear probe")
    both = [known, *(found.assign(recipe=name) for name in study.FROZEN.values()), found]
    lines = frozen.lines_of(pd.concat(both), ["linear probe", *study.FROZEN.values(), *study.TRAINED])
    assert len(lines) == 3 and lines[2] == "| rings, 10 |" + " 1.00 ± 0.00 |" * 7


def test_the_frozen_part_has_the_cells_that_stand_beside():
    assert set(study.FROZEN) <= set(frozen.RECIPES)
