"""Files of predictions: read, described, and the messages about broken files."""

import json
import subprocess
import sys

import h5py
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from drawn import SMALL, mixtures, some_concentrations, some_probabilities, some_weights, written
from zoolib.job.logs import UserError
from zoolib.posteriors.files import describe_posteriors, open_predictions, read_described
from zoolib.posteriors.summary import describe
from zoolib.posteriors.writer import predictions_file


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", ["concentrations", "probabilities"])
def test_the_flat_catalogue_is_the_description_of_all_galaxies(tmp_path, kind, threads):
    draw = some_concentrations if kind == "concentrations" else some_probabilities
    # More than two blocks.
    values = draw(1100, SMALL, 2).astype("float32")
    path = written(tmp_path / "part.hdf5", values, SMALL, kind=kind)
    describe_posteriors(path, tmp_path / "part.parquet", 0.8, SMALL.cuts, threads)
    table, about = read_described([tmp_path / "part.parquet"])
    assert list(table["id_str"]) == [f"galaxy {index}" for index in range(1100)]
    assert about == {"tree": SMALL, "credible_level": 0.8}
    with open_predictions(path) as opened:
        assert (opened.kind, opened.tree) == (kind, SMALL)
        expected = describe(table["id_str"], values, opened, 0.8, SMALL.cuts)
    # The file does not have it.
    expected = expected.assign(unfamiliar=np.nan)
    pd.testing.assert_frame_equal(table, expected, check_dtype=False, rtol=1e-5, atol=1e-6)
    assert table["cut_disk"].dtype == bool
    assert [path.name for path in tmp_path.glob("*.parquet")] == ["part.parquet"]


def test_a_chunk_without_galaxies_gives_an_empty_catalogue(tmp_path):
    path = written(tmp_path / "part.hdf5", np.ones((0, 7, 2)), SMALL)
    describe_posteriors(path, tmp_path / "part.parquet", 0.9, SMALL.cuts)
    assert pq.read_table(tmp_path / "part.parquet").num_rows == 0
    assert {"bulge_asked", "cut_disk"} <= set(pq.read_schema(tmp_path / "part.parquet").names)


def test_labels_have_their_mean_and_quantiles(tmp_path):
    values = np.random.default_rng(3).uniform(0, 1, (5, 1, 40))
    path = written(tmp_path / "part.hdf5", values, columns=["ring"], kind="probabilities")
    describe_posteriors(path, tmp_path / "part.parquet", 0.9)
    table, about = read_described([tmp_path / "part.parquet"])
    ends = ["ring_low", "ring_high", "ring_hd_low", "ring_hd_high"]
    assert list(table.columns) == ["id_str", "ring", *ends, "unfamiliar"]
    assert about["tree"] is None
    np.testing.assert_allclose(table["ring"], values.mean(axis=(1, 2)), atol=1e-6)
    np.testing.assert_allclose(table["ring_low"], np.quantile(values[:, 0], 0.05, axis=1), atol=1e-6)
    np.testing.assert_allclose(table["ring_high"], np.quantile(values[:, 0], 0.95, axis=1), atol=1e-6)


def test_blocks_are_mapped_in_order(tmp_path):
    values = some_concentrations(1300, SMALL, 2).astype("float32")
    path = written(tmp_path / "part.hdf5", values, SMALL)
    with open_predictions(path) as opened:
        mapped = list(opened.map(lambda rows, block, _: (rows.start, block[:, 3, 1]), threads=2))
    assert [start for start, _ in mapped] == [0, 512, 1024]
    np.testing.assert_array_equal(np.concatenate([some for _, some in mapped]), values[:, 3, 1])


@pytest.mark.parametrize(("tree", "what"), [(SMALL.to_dict(), "answer"), (None, "label")])
def test_a_file_says_what_its_probabilities_are_of(tmp_path, tree, what):
    about = {"kind": "probabilities", "tree": tree, "columns": SMALL.columns}
    values = some_probabilities(3, SMALL, 2).astype("float32")
    with predictions_file(tmp_path / "p.hdf5", 3, about, 1, 2, 1, 0) as append:
        assert append(["a", "b", "c"], values) == 3
    with h5py.File(tmp_path / "p.hdf5") as file:
        assert file.attrs["values"].decode() == f"probabilities of each {what}, one a sample"
    with open_predictions(tmp_path / "p.hdf5") as opened:
        assert opened.kind == "probabilities"
        assert opened.tree == (SMALL if tree else None)
        np.testing.assert_array_equal(opened.values[:], values)


def write_mixture(path, values, weights, per_sample=3):
    """Write mixtures as `predict` does, two galaxies at a time; the file is for more than are written."""
    samples = values.shape[2] // per_sample
    names = [f"galaxy {number}" for number in range(len(values))]
    with predictions_file(path, len(values) + 3, mixtures(SMALL, per_sample), 1, samples, 0, 0) as append:
        for start in range(0, len(values), 2):
            rows = slice(start, start + 2)
            append(names[rows], values[rows], weights[rows])
    return path


def test_mixtures_have_their_weights_beside_them(tmp_path):
    values = some_concentrations(5, SMALL, 6).astype("float32")
    weights = some_weights(5, SMALL, 2, 3)
    path = write_mixture(tmp_path / "p.hdf5", values, weights)
    with h5py.File(path) as file:
        assert file["weights"].shape == (5, 3, 6) and file["weights"].dtype == "float32"
        assert (file.attrs["kind"].decode(), file.attrs["components"]) == ("concentrations", 3)
    with open_predictions(path) as opened:
        assert opened.per_sample == 3
        blocks = list(opened.blocks(2))
        mapped = list(opened.map(lambda rows, some, shares: (rows, some, shares)))
    for found in (blocks, mapped):
        np.testing.assert_array_equal(np.concatenate([some for _, some, _ in found]), values)
        read = np.concatenate([shares for _, _, shares in found])
        np.testing.assert_allclose(read, weights, rtol=1e-6)
        np.testing.assert_allclose(read.sum(axis=2), 1, rtol=1e-14)


def test_predictions_without_weights_are_written_and_read_as_before(tmp_path):
    values = some_concentrations(5, SMALL, 6).astype("float32")
    about = mixtures(SMALL, 3) | {"kind": "concentrations"}
    new = tmp_path / "new.hdf5"
    with predictions_file(new, 5, about, 1, 6, 0, 0) as append:
        append(list("abcde"), values)
    with h5py.File(new) as file:
        assert set(file) == {"predictions", "id_str", "label_cols"} and "components" not in file.attrs
    # The layout of before.
    for path in (new, written(tmp_path / "old.hdf5", values, SMALL)):
        with open_predictions(path) as opened:
            [(_, found, weights)] = opened.blocks()
            assert weights is None and opened.weights is None and opened.per_sample == 1
            np.testing.assert_array_equal(found, values)


def test_the_flat_catalogue_of_mixtures_uses_their_weights(tmp_path):
    values, weights = some_concentrations(5, SMALL, 6).astype("float32"), some_weights(5, SMALL, 2, 3)
    path = write_mixture(tmp_path / "p.hdf5", values, weights)
    describe_posteriors(path, tmp_path / "p.parquet", 0.8)
    table, _ = read_described([tmp_path / "p.parquet"])
    with open_predictions(path) as opened:
        names, expected = opened.id_str, describe(opened.id_str, values, opened, 0.8, weights=weights)
        equal = describe(names, values, opened, 0.8)
    np.testing.assert_allclose(table[expected.columns[1:]], expected[expected.columns[1:]], atol=1e-4)
    assert (np.abs(equal["edge_yes_fraction"] - table["edge_yes_fraction"]) > 1e-3).any()


@pytest.mark.parametrize(("bad", "says"), [(np.nan, "nan"), (0.5, "1.4"), (-0.1, "0.8")])
def test_weights_that_are_no_shares_are_refused_with_galaxy_and_question(tmp_path, bad, says):
    weights = np.full((5, 3, 6), 0.1)
    weights[:, :, 0] = 0.5
    weights[3, 1, 1] = bad
    path = write_mixture(tmp_path / "p.hdf5", some_concentrations(5, SMALL, 6), weights)
    words = f"weights of 'edge' for galaxy 'galaxy 3' are negative or sum to {says}, expected 1"
    with pytest.raises(UserError, match=words), open_predictions(path) as opened:
        list(opened.blocks())


@pytest.mark.parametrize("change", ["weights", "components", "shape", "per_sample"])
def test_weights_that_do_not_fit_are_refused(tmp_path, change):
    path = write_mixture(tmp_path / "p.hdf5", some_concentrations(5, SMALL, 6), some_weights(5, SMALL, 2, 3))
    with h5py.File(path, "a") as file:
        del file.attrs["checksum"]
        if change == "components":
            del file.attrs["components"]
        elif change == "per_sample":
            file.attrs["components"] = 4
        else:
            del file["weights"]
        if change == "shape":
            file["weights"] = np.full((5, 2, 6), 1 / 6)
    with pytest.raises(UserError, match="its weights have the shape"), open_predictions(path):
        pass


def test_weights_are_given_for_mixtures_and_only_for_them(tmp_path):
    about, values, weights = mixtures(SMALL, 3), np.ones((1, 7, 3)), np.full((1, 3, 3), 1 / 3)
    for kind, given in (("mixtures", None), ("concentrations", weights)):
        with (
            pytest.raises(ValueError, match="for the kind 'mixtures'"),
            predictions_file(tmp_path / "p.hdf5", 1, about | {"kind": kind}, 1, 1, 0, 0) as append,
        ):
            append(["a"], values, given)


def test_a_name_that_hdf5_would_shorten_is_refused(tmp_path):
    about = {"kind": "values", "tree": None, "columns": ["x"]}
    with (
        pytest.raises(UserError, match=r"the name 'a\\x00' ends with a zero byte"),
        predictions_file(tmp_path / "p.hdf5", 1, about, 1, 1, 0, 0) as append,
    ):
        append(["a\0"], np.ones((1, 1, 1)))


@pytest.mark.parametrize("bad", [0.0, np.nan, -1.0])
def test_a_missing_part_is_an_error_with_galaxy_and_answer(tmp_path, bad):
    values = some_concentrations(3, SMALL, 2)
    values[1, 6, 1] = bad
    path = written(tmp_path / "part.hdf5", values, SMALL)
    with pytest.raises(UserError, match="part.hdf5: sample 1 of 'bulge_small' for galaxy 'galaxy 1'"):
        describe_posteriors(path, tmp_path / "part.parquet", 0.9)
    assert not list(tmp_path.glob("*.parquet"))
    assert not list(tmp_path.glob(".*"))


def test_files_that_are_no_predictions(tmp_path):
    (tmp_path / "text.hdf5").write_text("no HDF5")
    with pytest.raises(UserError, match="text.hdf5"), open_predictions(tmp_path / "text.hdf5"):
        pass
    with h5py.File(tmp_path / "empty.hdf5", "w"):
        pass
    with pytest.raises(UserError, match="'id_str' is missing"), open_predictions(tmp_path / "empty.hdf5"):
        pass
    path = written(tmp_path / "other.hdf5", np.ones((1, 2, 1)), SMALL, columns=["bar_yes", "bar_no"])
    with pytest.raises(UserError, match="are not the answers of its tree"), open_predictions(path):
        pass
    with h5py.File(path, "a") as file:
        file.attrs["tree"] = json.dumps(None)
    with pytest.raises(UserError, match="the attribute 'tree' is missing"), open_predictions(path):
        pass


FULL_DISK = """
import resource, sys
sys.path.insert(0, sys.argv[1])
import numpy as np
from zoolib.job.logs import log_to
from zoolib.posteriors import writer

# As much as a few blocks need.
writer.CACHE = 1 << 16
tree = {"name": "small", "questions": {"bar": {"answers": ["yes", "no"]}}}
about = {"kind": "concentrations", "tree": tree, "columns": ["bar_yes", "bar_no"], "training": {}}
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), int(sys.argv[2])))
written = 0
with log_to("log"), writer.predictions_file("p.hdf5", 3000, about, 1, 30, 0, 1) as append:
    for block in range(30):
        names = [f"{block} {galaxy}" for galaxy in range(100)]
        written += append(names, np.random.default_rng(block).random((100, 2, 30)))
        print("written", written, flush=True)
"""


def test_a_full_disk_stops_the_job_at_once_with_one_sentence(repo, tmp_path):
    """A limit of a file's size is an error of the system at the same place; HDF5 alone crashes at it."""
    for size in (9_000, 60_000, 300_000):
        command = [sys.executable, "-c", FULL_DISK, repo / "workflow/scripts", str(size)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 1, (size, done.stderr)
        assert "Traceback" not in done.stderr
        assert "p.hdf5: cannot be read or written (File too large)" in (tmp_path / "log").read_text()
        assert done.stdout.count("written") < 30
