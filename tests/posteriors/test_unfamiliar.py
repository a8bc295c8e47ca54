"""Galaxies unlike those of the training: the share by its definition, in files, catalogues and messages."""

import logging

import h5py
import numpy as np
import pandas as pd
import pytest
from drawn import SMALL, some_concentrations, written
from zoolib.job.logs import UserError
from zoolib.posteriors.collect import collect_predictions
from zoolib.posteriors.files import describe_posteriors, open_predictions
from zoolib.posteriors.unfamiliar import (
    count_unlike,
    keeping_distances,
    message,
    read_unfamiliar,
    together,
    unfamiliar,
)
from zoolib.posteriors.writer import predictions_file

ABOUT = {"kind": "concentrations", "tree": SMALL.to_dict(), "columns": SMALL.columns}


def validation(*counts):
    """Sorted distances of the validation galaxies of some members."""
    return [np.sort(np.random.default_rng(seed).gamma(9, 0.1, n)) for seed, n in enumerate(counts)]


def some_distances(galaxies, members, seed=5):
    """Distances that grow from galaxy to galaxy, to twice those of the validation galaxies."""
    drawn = np.random.default_rng(seed).gamma(9, 0.12, (galaxies, members))
    return (drawn * np.linspace(0.5, 3, galaxies)[:, None]).astype("float32")


def by_brute_force(distances, known):
    """The share of the validation galaxies that is nearer, galaxy by galaxy; old members do not count."""
    return [
        np.mean(
            [sum(one < far for one in of) / len(of) for far, of in zip(row, known, strict=True) if len(of)]
        )
        for row in distances
    ]


@pytest.mark.parametrize("counts", [(40,), (40, 7), (40, 0, 100)])
def test_the_share_is_that_of_brute_force(counts):
    known = validation(*counts)
    distances = some_distances(30, len(counts))
    distances[:, [not count for count in counts]] = np.nan
    found = unfamiliar(distances, together(known))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, by_brute_force(distances, known), atol=1e-6)


def test_the_ends_of_the_share():
    known = together([np.array([1.0, 2.0, 3.0])])
    # A galaxy as far as a validation galaxy is not farther.
    found = unfamiliar(np.array([[0.5], [1], [2.5], [3], [4]]), known)
    np.testing.assert_allclose(found, [0, 0, 2 / 3, 2 / 3, 1])
    assert np.isnan(unfamiliar(np.full((3, 2), np.nan), together([[], []]))).all()


class Part:
    """A part of predictions of 30 galaxies by members whose validation galaxies are known, or are not."""

    def __init__(self, path, known, first=0, last=30, block=7):
        self.path, self.known = path, known
        path.parent.mkdir(exist_ok=True)
        self.distances = some_distances(30, len(known))
        self.distances[:, [len(one) == 0 for one in known]] = np.nan
        values = some_concentrations(30, SMALL, 2 * len(known))
        part = {"models": "m", "first": first, "last": last, "of": 30}
        with (
            keeping_distances(path, known) as (keep, _),
            predictions_file(path, 30, ABOUT, len(known), 2, 0, 0, part) as append,
        ):
            for start in range(first, last, block):
                rows = slice(start, min(start + block, last))
                append([f"J{number}" for number in range(30)[rows]], values[rows])
                keep(self.distances[rows])
        path.with_suffix(".csv").write_text("id_str,reason\n")

    def described(self):
        """The column of the flat catalogue."""
        describe_posteriors(self.path, self.path.with_suffix(".parquet"), 0.9)
        return pd.read_parquet(self.path.with_suffix(".parquet"))["unfamiliar"].to_numpy()


def collected(folder, parts):
    names = ("predictions.hdf5", "rejected.csv", "unfamiliar.csv")
    output = type("Output", (), {name.split(".")[0]: folder / name for name in names})
    rejected = [part.path.with_suffix(".csv") for part in parts]
    collect_predictions([part.path for part in parts], rejected, 0.01, output)
    return output


def test_the_catalogue_has_the_share_whatever_the_chunks(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("zoolib"), "propagate", True)
    caplog.set_level("INFO", "zoolib")
    # The second member is of an older version.
    known = validation(60, 0, 200)
    one = Part(tmp_path / "one" / "0.hdf5", known)
    ends = [0, 11, 11, 30]
    parts = [
        Part(tmp_path / "chunks" / f"{chunk}.hdf5", known, first, last)
        for chunk, (first, last) in enumerate(zip(ends[:-1], ends[1:], strict=True))
    ]
    np.testing.assert_allclose(one.described(), by_brute_force(one.distances, known), atol=1e-6)
    np.testing.assert_array_equal(one.described(), np.concatenate([part.described() for part in parts]))
    output = collected(tmp_path, parts)
    said = caplog.messages[-1]
    with open_predictions(output.predictions) as opened:
        file = opened.values.file
        np.testing.assert_array_equal(file["distance"][:], one.distances)
        np.testing.assert_array_equal(read_unfamiliar(file), one.described())
    unlike = (one.described() > 0.99).sum()
    row = pd.read_csv(output.unfamiliar).iloc[0]
    assert (row["galaxies"], row["known"], row["unlike"]) == (30, 30, unlike) and unlike
    assert said == f"{100 * unlike / 30:.0f} % of these galaxies look unlike the training set (1 % is normal)"
    (tmp_path / "chunks" / "2.hdf5").unlink()
    with h5py.File(output.predictions) as file:
        assert np.isnan(file["distance"][11:]).all()


def test_old_models_and_old_predictions_have_no_share(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(logging.getLogger("zoolib"), "propagate", True)
    caplog.set_level("INFO", "zoolib")
    part = Part(tmp_path / "chunks" / "0.hdf5", validation(0, 0))
    with h5py.File(part.path) as file:
        assert "distance" not in file
    assert np.isnan(part.described()).all()
    output = collected(tmp_path, [part])
    row = pd.read_csv(output.unfamiliar).iloc[0]
    assert row["known"] == 0 and np.isnan(row["share"])
    assert caplog.messages[-1].startswith("No model says what it has learned from")
    written(tmp_path / "old.hdf5", some_concentrations(3, SMALL, 2), SMALL)
    describe_posteriors(tmp_path / "old.hdf5", tmp_path / "old.parquet", 0.9)
    assert pd.read_parquet(tmp_path / "old.parquet")["unfamiliar"].isna().all()


def test_damaged_distances_are_one_sentence(tmp_path):
    part = Part(tmp_path / "chunks" / "0.hdf5", validation(60))
    data = bytearray(part.path.read_bytes())
    with h5py.File(part.path) as file:
        data[file["distance"].id.get_chunk_info(0).byte_offset + 20] ^= 255
    part.path.write_bytes(data)
    words = "0.hdf5: how far the galaxies are from those of the training cannot be read .*predict again"
    with pytest.raises(UserError, match=words) as caught:
        part.described()
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match=words):
        collected(tmp_path, [part])
    assert not (tmp_path / "predictions.hdf5").exists()


@pytest.mark.parametrize(
    ("unlike", "known", "words"),
    [(0, 50, "0 % of"), (1, 1000, "less than 1 %"), (19, 50, "38 % of"), (50, 50, "100 % of")],
)
def test_the_message_says_a_rounded_share(unlike, known, words):
    shares = np.repeat([1.0, 0.99, np.nan], [unlike, known - unlike, 7])
    assert tuple(count_unlike(shares)) == (known, unlike)
    assert message(known, unlike).startswith(words)
