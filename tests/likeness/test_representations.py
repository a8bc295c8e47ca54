"""Files of representations: what is written is read, and what does not fit together is a message."""

import h5py
import numpy as np
import pytest
from drawn import SMALL
from zoolib.job.logs import UserError
from zoolib.likeness import representations
from zoolib.likeness.representations import (
    collect_representations,
    read_representations,
    representations_file,
)
from zoolib.posteriors.writer import predictions_file

ABOUT = {"kind": "concentrations", "tree": SMALL.to_dict(), "columns": SMALL.columns}
NAMES = [f"J{number:03d}" for number in range(50)]


def parts(folder, values, sizes=(20, 0, 30), models="a"):
    """Parts of a target with these representations; None writes none."""
    paths, first = [], 0
    for number, size in enumerate(sizes):
        rows = slice(first, first + size)
        about = {"models": models, "first": first, "last": first + size, "of": sum(sizes)}
        paths.append(folder / f"{number}.hdf5")
        with predictions_file(paths[-1], size, ABOUT, 1, 2, 0, 0, about) as append:
            if size:
                seen = None if values is None else values[rows]
                append(NAMES[rows], np.ones((size, len(SMALL.columns), 2)), seen=seen)
        first += size
    return paths


def test_the_parts_are_joined_in_order_as_float16(tmp_path, monkeypatch):
    monkeypatch.setattr(representations, "BLOCK", 7)
    values = np.random.default_rng(1).normal(size=(50, 6))
    collect_representations(parts(tmp_path, values), tmp_path / "all.hdf5")
    found = read_representations(tmp_path / "all.hdf5")
    assert found.id_str.tolist() == NAMES and found.values.dtype == np.float32
    np.testing.assert_array_equal(found.values, values.astype(np.float16).astype(np.float32))
    with h5py.File(tmp_path / "all.hdf5") as file:
        assert file["representations"].dtype == np.float16 and file.attrs["models"] == b"a"


def test_numbers_beyond_float16_are_its_largest(tmp_path):
    with representations_file(tmp_path / "r.hdf5", 2, {}) as append:
        append(["a", "b"], np.array([[1e9, -1e9], [1, 2]]))
    np.testing.assert_array_equal(read_representations(tmp_path / "r.hdf5").values, [[65504, -65504], [1, 2]])


def test_numbers_just_below_a_power_of_two_are_not_halved(tmp_path):
    """HDF5 halves some if it converts to float16 itself: in large blocks, where others stand between them."""
    random = np.random.default_rng(0)
    values = random.lognormal(-3, 1.5, (4000, 64))
    values[:, ::3] = 2.0 ** random.integers(-12, 5, values[:, ::3].shape) * (1 - 1e-5)
    names = [str(row) for row in range(4000)]
    with representations_file(tmp_path / "r.hdf5", 4000, {}) as append:
        append(names, values)
    np.testing.assert_allclose(read_representations(tmp_path / "r.hdf5").values, values, rtol=1e-3)
    with predictions_file(tmp_path / "p.hdf5", 4000, ABOUT, 1, 1, 1, 0) as append:
        append(names, np.ones((4000, len(SMALL.columns), 1)), seen=values)
    with h5py.File(tmp_path / "p.hdf5") as file:
        np.testing.assert_allclose(file["representations"][:], values, rtol=1e-3)


def test_a_file_may_have_fewer_galaxies_than_were_listed(tmp_path):
    with representations_file(tmp_path / "r.hdf5", 5, {}) as append:
        append(["a", "b"], np.ones((2, 3)))
    assert read_representations(tmp_path / "r.hdf5").values.shape == (2, 3)


def test_parts_that_do_not_fit_are_a_message(tmp_path):
    for name in "abc":
        (tmp_path / name).mkdir()
    without = parts(tmp_path / "a", None)
    with pytest.raises(UserError, match="0.hdf5: has no representations. .* predict again"):
        collect_representations(without, tmp_path / "all.hdf5")
    wide, narrow = (parts(tmp_path / name, np.ones((50, numbers))) for name, numbers in (("b", 4), ("c", 5)))
    with pytest.raises(UserError, match=r"have \[4, 5\] numbers a galaxy, expected the same"):
        collect_representations([*wide[:2], narrow[2]], tmp_path / "all.hdf5")
    others = parts(tmp_path / "a", np.ones((50, 4)), models="b")
    with pytest.raises(UserError, match="is of other models than"):
        collect_representations([*wide[:2], others[2]], tmp_path / "all.hdf5")
    assert not (tmp_path / "all.hdf5").exists()


def test_a_file_that_is_none_is_a_message(tmp_path):
    (tmp_path / "r.hdf5").write_bytes(b"no HDF5")
    with pytest.raises(UserError, match="r.hdf5: cannot be read as representations .*snakemake represent"):
        read_representations(tmp_path / "r.hdf5")
    path = parts(tmp_path, None)[0]
    with pytest.raises(UserError, match="cannot be read as representations"):
        read_representations(path)


def test_a_name_that_is_not_there_is_a_message(tmp_path):
    with representations_file(tmp_path / "r.hdf5", 2, {}) as append:
        append(["a", "b"], np.ones((2, 3)))
    found = read_representations(tmp_path / "r.hdf5")
    assert found.rows_of(["b", "a"], "mine.csv").tolist() == [1, 0]
    with pytest.raises(UserError, match="mine.csv: 1 of 2 galaxies are not in .*r.hdf5, the first is 'x'"):
        found.rows_of(["a", "x"], "mine.csv")
