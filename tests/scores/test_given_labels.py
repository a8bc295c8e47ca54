"""Any predictions beside the user's own labels: the scores of a task that has the same test galaxies."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from task_fits import KIND, RING, SIZE, TREE, VOTES, recalibrate, write_fits
from zoolib.job.logs import UserError
from zoolib.scores.given_labels import score_target
from zoolib.scores.tasks import evaluate_task


def files(folder):
    names = {"galaxies": "parquet", "scores": "csv", "confusion": "csv", "advice": "csv", "rejected": "csv"}
    return SimpleNamespace(**{name: folder / f"{name}.{suffix}" for name, suffix in names.items()})


def given(fits, labels):
    """The labels of the test galaxies as a user writes them, in another order."""
    table = fits.read("test")
    shown = pd.DataFrame({"id_str": table["id_str"]})
    for label in labels:
        if label.kind == "votes":
            shown[TREE.columns] = table[TREE.columns].astype(int)
        elif label.classes:
            shown[label.name] = [label.classes[int(number)] for number in table[label.name]]
        else:
            shown[label.name] = table[label.name]
    return shown.sample(frac=1, random_state=0)


def scores_of(path):
    table = pd.read_csv(path).query("split == 'test'")
    return table.set_index(["label", "score"]).drop(columns="split").sort_index()


@pytest.mark.parametrize("labels", [[RING, KIND, SIZE], [VOTES]])
@pytest.mark.parametrize("recalibrated", [False, True])
def test_the_scores_are_those_of_a_task_with_these_test_galaxies(tmp_path, labels, recalibrated, monkeypatch):
    fits = write_fits(tmp_path, labels, counts=(100, 40, 60))
    found = recalibrate(tmp_path, fits) if recalibrated else ()
    of_task, own = files(tmp_path / "task"), files(tmp_path / "own")
    evaluate_task(fits.galaxies, fits.predictions, 1, of_task, recalibrations=found)
    table = given(fits, labels)
    table.to_csv(tmp_path / "labels.csv", index=False)
    # Blocks smaller than the survey: each holds some of the galaxies, or none.
    monkeypatch.setattr("zoolib.posteriors.files.Predictions.blocks.__defaults__", (7, True))
    score_target(fits.path, tmp_path / "labels.csv", "mine", 1, own, recalibrations=found)
    wanted, ours = scores_of(of_task.scores), scores_of(own.scores)
    assert list(wanted.index) == list(ours.index)
    assert set(ours["galaxies"]) == set(wanted["galaxies"])
    columns = ["value", "as_trained"] if recalibrated else ["value"]
    pd.testing.assert_frame_equal(ours[columns], wanted[columns])
    # Other resamples, and a constant that knows these labels themselves.
    assert np.nanmax(np.abs(ours["low_68"] - wanted["low_68"])) < 0.3
    assert "probe" not in ours and ours["constant"].notna().any()
    confusions = [pd.read_csv(path).query("subset == 'test'") for path in (of_task.confusion, own.confusion)]
    pd.testing.assert_frame_equal(*[table.reset_index(drop=True) for table in confusions])
    assert pd.read_csv(own.rejected).empty


def test_galaxies_without_a_label_or_a_prediction_are_left_out_and_named(tmp_path):
    fits = write_fits(tmp_path, [RING])
    table = given(fits, [RING]).reset_index(drop=True)
    table["ring"] = table["ring"].astype(object)
    table.loc[0, "ring"] = ""
    table.loc[len(table)] = ["stranger", 1]
    table.to_csv(tmp_path / "labels.csv", index=False)
    output = files(tmp_path)
    score_target(fits.path, tmp_path / "labels.csv", "mine", 1, output)
    assert set(pd.read_csv(output.scores)["galaxies"]) == {39}
    rejected = pd.read_csv(output.rejected)
    assert list(rejected["id_str"]) == ["stranger"]
    assert rejected["reason"][0] == f"labels.csv, line 42: the galaxy 'stranger' is not in {fits.path}."


def test_labels_of_no_predicted_galaxy_and_wrong_ones_are_sentences(tmp_path):
    fits = write_fits(tmp_path, [RING])
    table = given(fits, [RING])
    path = tmp_path / "labels.csv"
    for changed, expected in (
        (table.assign(id_str="x" + table["id_str"]), "none of 40 galaxies passes the step 'predicted'"),
        (table.assign(ring="perhaps"), "the label 'ring' is 'perhaps', expected 0 or 1"),
        (table.rename(columns={"ring": "Ring"}), "has no column 'ring'"),
    ):
        changed.to_csv(path, index=False)
        with pytest.raises(UserError, match=expected):
            score_target(fits.path, path, "mine", 1, files(tmp_path))
        assert not (tmp_path / "scores.csv").exists()
