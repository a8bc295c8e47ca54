"""The list of what to label next, from the files of predictions."""

import json

import h5py
import numpy as np
import pandas as pd
import pytest
from drawn import SMALL, mixtures, some_concentrations, some_probabilities, some_weights, written
from pipeline import REPO
from zoolib.config.labels import Label
from zoolib.config.trees import DecisionTree
from zoolib.job.logs import UserError, log
from zoolib.posteriors.information import featured_information, joint_information, label_information
from zoolib.posteriors.ranking import rank_galaxies
from zoolib.posteriors.writer import predictions_file

INFORMATION = [f"{question.name}_information" for question in SMALL.questions]


def expected_list(names, total, **columns):
    """The text that pandas writes with all galaxies in memory."""
    table = pd.DataFrame({"id_str": names, "information": total, **columns})
    table = table.sort_values(["information", "id_str"], ascending=[False, True])
    table.insert(0, "rank", np.arange(1, len(table) + 1))
    return table.to_csv(index=False, float_format="%.6g")


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", ["concentrations", "probabilities"])
def test_galaxies_are_ranked_over_all_chunks(tmp_path, kind, threads):
    draw = some_concentrations if kind == "concentrations" else some_probabilities
    # More than one block in a chunk, and a chunk without galaxies.
    parts, values = (
        [],
        [draw(galaxies, SMALL, 4, seed=galaxies).astype("float32") for galaxies in (600, 0, 40)],
    )
    for chunk, some in enumerate(values):
        parts.append(written(tmp_path / f"{chunk}.hdf5", some, SMALL, kind=kind))
        with h5py.File(parts[-1], "a") as file:
            file["id_str"][...] = [f"{chunk}-{galaxy}" for galaxy in range(len(some))]
    rank_galaxies(parts, tmp_path / "label_next.csv", threads=threads)
    names = np.array(
        [f"{chunk}-{galaxy}" for chunk, some in enumerate(values) for galaxy in range(len(some))]
    )
    found, _ = joint_information(np.concatenate(values).astype(float), SMALL, names, kind)
    expected = expected_list(names, found.sum(axis=1), **dict(zip(INFORMATION, found.T, strict=True)))
    assert (tmp_path / "label_next.csv").read_text() == expected


def test_components_of_a_sample_are_no_disagreement(tmp_path):
    values = some_concentrations(30, SMALL, 6).astype("float32")
    weights = some_weights(30, SMALL, 2, 3).astype("float32")
    with predictions_file(tmp_path / "0.hdf5", 30, mixtures(SMALL, 3), 1, 2, 0, 0) as append:
        append([f"J{number:02d}" for number in range(30)], values, weights)
    rank_galaxies([tmp_path / "0.hdf5"], tmp_path / "label_next.csv")
    ranked = pd.read_csv(tmp_path / "label_next.csv").sort_values("id_str")
    names = ranked["id_str"].to_numpy()
    found, _ = joint_information(values.astype(float), SMALL, names, "concentrations", weights, 3)
    np.testing.assert_allclose(ranked[INFORMATION], found, rtol=1e-4, atol=1e-7)
    apart, _ = joint_information(values.astype(float), SMALL, names, "concentrations", weights)
    assert (apart.sum(axis=1) > found.sum(axis=1)).all()


def test_the_papers_list_has_one_number(tmp_path):
    tree = DecisionTree.load(REPO / "config" / "trees" / "gz_decals_5.yaml")
    values = some_concentrations(20, tree, 4).astype("float32")
    path = written(tmp_path / "0.hdf5", values, tree)
    rank_galaxies([path], tmp_path / "label_next.csv", "paper")
    found = featured_information(values.astype(float), tree)
    expected = expected_list([f"galaxy {number}" for number in range(20)], found)
    assert (tmp_path / "label_next.csv").read_text() == expected


def test_a_tree_that_does_not_ask_for_features(tmp_path):
    path = written(tmp_path / "0.hdf5", some_concentrations(3, SMALL, 2), SMALL)
    with pytest.raises(UserError, match="'small' begins with 'shape' .smooth, disk, star.; choose joint"):
        rank_galaxies([path], tmp_path / "label_next.csv", "paper")
    assert not list(tmp_path.glob("*.csv")) and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("acquisition", ["joint", "paper"])
def test_labels_count_one_more_of_each(tmp_path, acquisition):
    labels = [Label("ring"), Label("kind", "multiclass", ("a", "b", "c"))]
    values = np.random.default_rng(1).dirichlet(np.ones(3), (9, 5)).transpose(0, 2, 1)
    values = np.concatenate([values[:, :1], values], axis=1).astype("float32")
    names = ["ring", "kind_a", "kind_b", "kind_c"]
    path = written(tmp_path / "0.hdf5", values, columns=names, kind="probabilities")
    with h5py.File(path, "a") as file:
        file.attrs["labels"] = json.dumps([label.to_dict() for label in labels])
    rank_galaxies([path], tmp_path / "label_next.csv", acquisition)
    found = label_information(values.astype(float), labels)
    columns = {"ring_information": found[:, 0], "kind_information": found[:, 1]}
    expected = expected_list([f"galaxy {number}" for number in range(9)], found.sum(axis=1), **columns)
    assert (tmp_path / "label_next.csv").read_text() == expected


def test_labels_of_different_kinds_count_what_each_knows(tmp_path):
    votes = Label("small", "votes", tree=SMALL)
    labels = [Label("ring"), votes, Label("mass", "regression")]
    random = np.random.default_rng(1)
    ring, mass = random.uniform(size=(9, 1, 5)), random.normal(size=(9, 1, 5))
    values = np.concatenate([ring, some_concentrations(9, SMALL, 5), mass], axis=1).astype("float32")
    columns = [output for label in labels for output in label.outputs]
    path = written(tmp_path / "0.hdf5", values, columns=columns, kind="mixed")
    with h5py.File(path, "a") as file:
        file.attrs["labels"] = json.dumps([label.to_dict() for label in labels])
    rank_galaxies([path], tmp_path / "label_next.csv", seed=3)
    values, names = values.astype(float), np.array([f"galaxy {number}" for number in range(9)])
    of_ring = label_information(values[:, :1], [Label("ring")])[:, 0]
    of_votes, _ = joint_information(values[:, 1:-1], SMALL, names, seed=3)
    found = {"ring_information": of_ring, **dict(zip(INFORMATION, of_votes.T, strict=True))}
    expected = expected_list(names, of_ring + of_votes.sum(axis=1), **found, mass_information=np.nan)
    assert (tmp_path / "label_next.csv").read_text() == expected


def test_numbers_without_information_are_listed_by_name(tmp_path):
    path = written(tmp_path / "p.hdf5", np.ones((3, 1, 2)), columns=["mass"], kind="values")
    rank_galaxies([path], tmp_path / "label_next.csv")
    lines = (tmp_path / "label_next.csv").read_text().splitlines()
    assert lines == ["rank,id_str,information", "1,galaxy 0,", "2,galaxy 1,", "3,galaxy 2,"]


def test_one_sample_ranks_nothing_and_says_so(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(log, "propagate", True)
    path = written(tmp_path / "part.hdf5", some_concentrations(4, SMALL, 1), SMALL)
    rank_galaxies([path], tmp_path / "label_next.csv")
    assert "The information is 0 for every galaxy" in caplog.text
    assert list(pd.read_csv(tmp_path / "label_next.csv")["id_str"]) == [f"galaxy {n}" for n in range(4)]


def test_simulated_information_is_reported(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(log, "propagate", True)
    caplog.set_level("INFO")
    tree = DecisionTree.from_dict({"name": "t", "questions": {"kind": {"answers": list("abcdefg")}}})
    values = some_concentrations(6, tree, 3).astype("float32")
    path = written(tmp_path / "0.hdf5", values, tree)
    rank_galaxies([path], tmp_path / "label_next.csv", seed=5)
    assert "6 values are simulated, with standard errors up to 0.00" in caplog.text
    names = np.array([f"galaxy {number}" for number in range(6)])
    found, _ = joint_information(values.astype(float), tree, names, seed=5)
    expected = expected_list(names, found[:, 0], kind_information=found[:, 0])
    assert (tmp_path / "label_next.csv").read_text() == expected
