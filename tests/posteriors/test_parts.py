"""The parts of a target's predictions: those that do not belong together, are missing, or are left over."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import h5py
import numpy as np
import pandas as pd
import pytest
from drawn import SMALL, mixtures, some_concentrations, some_weights
from zoolib.job.logs import UserError
from zoolib.posteriors import collect
from zoolib.posteriors.collect import collect_predictions
from zoolib.posteriors.files import describe_posteriors, open_predictions, read_described
from zoolib.posteriors.parts import FOLDER, check_together
from zoolib.posteriors.ranking import rank_galaxies
from zoolib.posteriors.unseen import learned_codes, marking_learned
from zoolib.posteriors.writer import predictions_file

ABOUT = {"kind": "concentrations", "tree": SMALL.to_dict(), "columns": SMALL.columns}


class Target:
    """A folder of predictions of some galaxies, in one part for each chunk."""

    def __init__(self, folder, galaxies=40):
        self.folder, self.galaxies, self.bad = folder, galaxies, 0

    def part(self, chunk, of, models="old", samples=3, name=None, per_sample=None):
        """Predict one chunk, with per_sample as a model whose samples are mixtures."""
        first, last = (number * self.galaxies // of for number in (chunk, chunk + 1))
        names = [f"{name or 'J'}{number}" for number in range(first, last)]
        components = samples * (per_sample or 1)
        values = some_concentrations(len(names), SMALL, components, seed=chunk).astype("float32")
        path = self.folder / "chunks" / f"{chunk}.hdf5"
        path.parent.mkdir(parents=True, exist_ok=True)
        about = {"models": models, "first": first, "last": last, "of": self.galaxies}
        model = mixtures(SMALL, per_sample) if per_sample else ABOUT
        weights = some_weights(len(names), SMALL, samples, per_sample, chunk) if per_sample else None
        with predictions_file(path, len(names), model, 1, samples, 0, 0, about) as append:
            append(names, values, weights)
        rows = "".join(f"bad{chunk}-{row},x.png: is empty\n" for row in range(self.bad))
        path.with_suffix(".rejected.csv").write_text("id_str,reason\n" + rows)
        return path

    def describe(self, *parts):
        """Describe parts in the flat catalogue; returns their files."""
        described = [self.folder / "catalog" / f"{path.stem}.parquet" for path in parts]
        for path, output in zip(parts, described, strict=True):
            describe_posteriors(path, output, 0.9)
        return described

    def collect(self, *parts, max_rejected=0.01, copied=False):
        """Collect the parts; returns the joined file."""
        names = ("predictions.hdf5", "rejected.csv", "unfamiliar.csv")
        output = SimpleNamespace(**{Path(name).stem: self.folder / name for name in names})
        rejected = [path.with_suffix(".rejected.csv") for path in parts]
        collect_predictions(list(map(str, parts)), rejected, max_rejected, output, copied=copied)
        return output.predictions

    def run(self, of, **changes):
        """Predict, describe and collect all chunks; returns the virtual file."""
        parts = [self.part(chunk, of, **changes) for chunk in range(of)]
        self.describe(*parts)
        return self.collect(*parts)


@pytest.fixture
def target(tmp_path):
    return Target(tmp_path / "target")


def refused(path, words):
    """Assert that a file of predictions is refused with one sentence."""
    with pytest.raises(UserError, match=words) as caught, open_predictions(path):
        pass
    assert "\n" not in str(caught.value)


def test_a_missing_part_reads_as_nan_and_is_refused(target):
    path = target.run(4)
    with open_predictions(path) as opened:
        assert np.isfinite(opened.values[:]).all()
    (target.folder / "chunks" / "2.hdf5").unlink()
    with h5py.File(path) as file:
        assert np.isnan(file["predictions"][20:30]).all()
        assert np.isfinite(file["predictions"][:20]).all()
    refused(path, "chunks/2.hdf5: is missing, and .*predictions.hdf5 has its numbers from there")


def test_weights_are_joined_as_the_predictions_are(target):
    # One of the parts has no galaxy.
    target.galaxies = 3
    parts = [target.part(chunk, 4, per_sample=2) for chunk in range(4)]
    path = target.collect(*parts)
    assert checked(path) == {"id_str", "label_cols", "parts"}
    assert checked(parts[1]) == {"predictions", "weights", "id_str", "label_cols"}
    expected = np.concatenate([some_weights(1, SMALL, 3, 2, chunk) for chunk in (1, 2, 3)])
    with open_predictions(path) as opened:
        assert opened.per_sample == 2
        [(_, values, weights)] = opened.blocks()
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    np.testing.assert_allclose(values[0], some_concentrations(1, SMALL, 6, seed=1)[0], rtol=1e-6)
    parts[2].unlink()
    with h5py.File(path) as file:
        assert np.isnan(file["weights"][1]).all() and np.isfinite(file["weights"][[0, 2]]).all()
    refused(path, "chunks/2.hdf5: is missing")


def test_a_file_of_copies_needs_no_parts(target, tmp_path, monkeypatch):
    monkeypatch.setattr(collect, "COPIED", 4)
    parts = [target.part(chunk, 3, per_sample=2) for chunk in range(3)]
    for part in parts:
        with h5py.File(part) as file:
            ids = file["id_str"].asstr()[:]
        with marking_learned(part, [("model", {})]) as mark:
            mark(ids)
    with open_predictions(target.collect(*parts)) as opened:
        ids, values, weights = opened.id_str, opened.values[:], opened.weights[:]
        learned = learned_codes(opened)
    alone = shutil.copy(target.collect(*parts, copied=True), tmp_path / "alone.hdf5")
    shutil.rmtree(target.folder)
    with open_predictions(alone) as opened:
        assert not opened.values.is_virtual and list(opened.id_str) == list(ids)
        np.testing.assert_array_equal(opened.values[:], values)
        np.testing.assert_array_equal(opened.weights[:], weights)
        assert (learned_codes(opened)[0] == learned[0]).all() and learned_codes(opened)[1] == learned[1]
    # Its bytes have checksums.
    assert checked(alone) >= {"predictions", "weights", "id_str", "label_cols"}


def test_predictions_without_their_parts_are_refused_wherever_they_are_read(target, tmp_path, monkeypatch):
    path = target.run(2)
    (tmp_path / "copy").mkdir()
    shutil.copy(path, tmp_path / "copy")
    refused(tmp_path / "copy" / "predictions.hdf5", "copy/chunks/0.hdf5: is missing")
    # HDF5 would find the parts of another target in the working directory.
    monkeypatch.chdir(target.folder)
    refused(tmp_path / "copy" / "predictions.hdf5", "copy/chunks/0.hdf5: is missing")
    # A complete folder can be moved.
    target.folder.rename(tmp_path / "moved")
    with open_predictions(tmp_path / "moved" / "predictions.hdf5") as opened:
        assert len(list(opened.blocks(7))) == 6


@pytest.mark.parametrize(
    "changes",
    [{"of": 3}, {"name": "K"}, {"models": "new"}, {"samples": 5}, {"per_sample": 2}],
    ids=lambda change: str(change),
)
def test_a_part_that_was_replaced_is_refused(target, changes):
    path = target.run(2)
    target.part(1, **{"of": 2, **changes})
    refused(path, "chunks/1.hdf5: is not the file that .* refers to, but one of other galaxies, models")


@pytest.mark.parametrize("content", [b"", b"no HDF5", None])
def test_a_damaged_part_is_refused(target, content):
    path = target.run(2)
    part = target.folder / "chunks" / "1.hdf5"
    part.write_bytes(part.read_bytes()[:3000] if content is None else content)
    refused(path, "chunks/1.hdf5: cannot be read as predictions in HDF5")


@pytest.mark.parametrize("damaged", ["predictions", "weights"])
def test_bytes_that_are_not_as_they_were_written_are_refused(target, damaged):
    part = target.part(0, 1, per_sample=2)
    data = bytearray(part.read_bytes())
    with h5py.File(part) as file:
        where = file[damaged].id.get_chunk_info(0).byte_offset
    data[where + 50] ^= 255
    part.write_bytes(data)
    with (
        pytest.raises(UserError, match="0.hdf5: the numbers of the galaxies 0 to 39 cannot be read"),
        open_predictions(part) as opened,
    ):
        list(opened.blocks())


def checked(path):
    """Names of the datasets of a file whose bytes HDF5 checks."""
    with h5py.File(path) as file:
        return {name for name, dataset in file.items() if dataset.fletcher32}


def test_only_the_links_of_a_virtual_file_are_in_the_heap_which_has_no_checksums(target):
    part = target.part(0, 1)
    with marking_learned(part, [("models/0", {})]) as mark:
        mark([f"J{number}" for number in range(40)])
    assert b"GCOL" not in part.read_bytes()
    assert checked(part) == {"predictions", "id_str", "label_cols", "learned"}
    path = target.collect(part)
    data = path.read_bytes()
    assert data.count(b"GCOL") == 1
    assert checked(path) == {"id_str", "label_cols", "parts"}
    # HDF5 itself would never end at a heap of zeros.
    heap = data.index(b"GCOL") + 16
    path.write_bytes(data[:heap] + bytes(2000) + data[heap + 2000 :])
    refused(path, "predictions.hdf5: cannot be read as predictions .*bytes are not those that were written")


def test_text_is_read_as_users_read_it(target):
    # The parts have names of different lengths.
    path = target.collect(target.part(0, 2, name="Jé"), target.part(1, 2, name="long name in 日本語 "))
    names = [f"Jé{number}" for number in range(20)] + [f"long name in 日本語 {n}" for n in range(20, 40)]
    for file_path, expected in ((path, names), (target.folder / "chunks" / "1.hdf5", names[20:])):
        with h5py.File(file_path) as file:
            assert list(file["id_str"].asstr()) == list(file["id_str"].asstr()[:]) == expected
            assert list(file["label_cols"].asstr()) == SMALL.columns
            assert json.loads(file.attrs["tree"]) == SMALL.to_dict()
        with open_predictions(file_path) as opened:
            assert list(opened.id_str) == expected


def older(path):
    """Write a file again as older versions did: text of any length, and nothing before the bytes of HDF5."""
    source = path.rename(path.with_suffix(".new"))
    with h5py.File(source) as new, h5py.File(path, "w", libver="v110") as file:
        for name in new:
            new.copy(name, file)
        for name in ("id_str", "label_cols"):
            del file[name]
            file.create_dataset(name, data=list(new[name].asstr()), dtype=h5py.string_dtype())
        if "parts" in new:
            del file["parts"]
            file["parts"] = json.dumps(dict(new["parts"].asstr()[:].tolist()))
        for name, value in new.attrs.items():
            file.attrs[name] = value.decode() if isinstance(value, bytes) else value
    source.unlink()
    assert path.read_bytes().startswith(b"\x89HDF") and b"GCOL" in path.read_bytes()


def test_files_with_text_of_any_length_are_read_as_before(target):
    parts = [target.part(chunk, 2, name="é" * (chunk + 1)) for chunk in range(2)]
    # Parts of both layouts belong together.
    older(parts[0])
    path = target.collect(*parts)
    with open_predictions(path) as opened:
        names = list(opened.id_str)
    assert names[19:21] == ["é19", "éé20"]
    older(path)
    with open_predictions(path) as opened:
        assert list(opened.id_str) == names and opened.tree == SMALL
        assert sum(len(values) for _, values, _ in opened.blocks()) == 40
    target.part(1, 2, models="new")
    refused(path, "chunks/1.hdf5: is not the file that .* refers to")


@pytest.mark.parametrize("what", ["names", "attributes"])
def test_a_part_with_damaged_text_is_not_collected(target, what):
    part = target.part(0, 1)
    data = bytearray(part.read_bytes())
    with h5py.File(part) as file:
        where = file["id_str"].id.get_chunk_info(0).byte_offset
    data[where if what == "names" else data.index(b'"questions"')] ^= 1
    part.write_bytes(data)
    with pytest.raises(UserError, match="0.hdf5: cannot be read as predictions in HDF5 .*predict again"):
        target.collect(part)
    assert not list(target.folder.glob("*.*"))


@pytest.mark.parametrize("per_sample", [None, 2])
def test_mutated_files_are_refused_or_read_as_they_were(target, per_sample):
    part = target.part(0, 1, per_sample=per_sample)
    described = target.describe(part)
    path = target.collect(part)

    def numbers(file):
        with open_predictions(file) as opened:
            about = opened.id_str.tolist(), opened.columns, opened.kind, opened.tree, opened.per_sample
            return [(values.tolist(), np.array(w).tolist()) for _, values, w in opened.blocks()], about

    def table(file):
        found, about = read_described([file])
        return found.to_csv(), about

    rng, refusals = np.random.default_rng(0), 0
    for file, read in ((part, numbers), (path, numbers), (described[0], table)):
        data, expected = file.read_bytes(), read(file)
        for _ in range(40):
            mutated = bytearray(data)
            mutated[rng.integers(len(data))] ^= 1 << rng.integers(8)
            file.write_bytes(mutated)
            try:
                assert read(file) == expected
            except UserError as error:
                refusals += 1
                assert "\n" not in str(error)
        file.write_bytes(data)
    assert refusals > 30


def test_fewer_chunks_leave_no_rows_of_the_old_ones(target):
    target.run(4)
    # Another job may write the last of these at the moment.
    kept = ["notes.hdf5", "3.csv", "4.hdf5.txt", "03.hdf5", ".79.node1.1.hdf5"]
    for name in (*kept, ".77.node1.3.hdf5", ".78.node1.cluster.3.rejected.csv"):
        (target.folder / "chunks" / name).touch()
    (target.folder / "catalog" / ".78.node1.3.parquet").touch()
    path = target.run(2, models="new")
    assert sorted(os.listdir(target.folder / "catalog")) == ["0.parquet", "1.parquet"]
    assert len(pd.read_parquet(target.folder / "catalog")) == 40
    expected = ["0.hdf5", "0.rejected.csv", "1.hdf5", "1.rejected.csv", *kept]
    assert sorted(os.listdir(target.folder / "chunks")) == sorted(expected)
    with open_predictions(path) as opened:
        assert list(opened.id_str) == [f"J{number}" for number in range(40)]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"models": "new"}, "is of other models than"),
        ({"samples": 5}, "has another 'samples_per_view' than"),
        ({"per_sample": 2}, "has another '(components|values)' than"),
        ({"of": 4}, "has the galaxies 10 to 20 of the target, expected 20 to 20"),
    ],
)
def test_parts_that_do_not_belong_together_are_not_joined(target, changes, words):
    parts = [target.part(0, 2), target.part(1, **{"of": 2, **changes})]
    described = target.describe(*parts)
    calls = [lambda: target.collect(*parts), lambda: rank_galaxies(parts, target.folder / "label_next.csv")]
    if not {"samples", "per_sample"} & set(changes):
        calls += [lambda: read_described(described)]
    for call in calls:
        with pytest.raises(UserError, match=f"1.(hdf5|parquet): {words}") as caught:
            call()
        assert "--forcerun predict_chunk" in str(caught.value) and "\n" not in str(caught.value)
    assert not list(target.folder.glob("*.*"))


def test_parts_that_belong_together_are_ranked_and_each_can_be_read_alone(target):
    parts = [target.part(chunk, 3) for chunk in range(3)]
    described = target.describe(*parts)
    rank_galaxies(parts, target.folder / "label_next.csv")
    assert len(pd.read_csv(target.folder / "label_next.csv")) == 40
    assert len(read_described(described)[0]) == 40
    assert len(read_described(described[1:2])[0]) == 13


def test_a_part_that_is_not_listed_is_missed(target):
    parts = [target.part(chunk, 4) for chunk in range(4)]
    with pytest.raises(UserError, match="2.hdf5: ends with galaxy 30 of the target, which has 40"):
        target.collect(*parts[:3])
    with pytest.raises(UserError, match="2.hdf5: has the galaxies 20 to 30 of the target, expected 10 to 30"):
        target.collect(parts[0], *parts[2:])


def test_parts_of_a_folder_may_leave_positions_out_but_are_those_of_its_list():
    parts = {"0": {"of": FOLDER, "first": 0, "last": 5}, "1": {"of": FOLDER, "first": 128, "last": 133}}
    check_together(parts)
    check_together(parts, [(0, 5), (128, 133)])
    with pytest.raises(UserError, match="1: has the galaxies 128 to 133 of the target, expected 128 to 134"):
        check_together(parts, [(0, 5), (128, 134)])
    with pytest.raises(UserError, match="0: has the galaxies 0 to 5 of the target, expected 133 to 5"):
        check_together({"1": parts["1"], "0": parts["0"]})


def test_parts_described_with_other_settings_are_not_joined(target):
    described = target.describe(target.part(0, 2), target.part(1, 2))
    describe_posteriors(target.folder / "chunks" / "1.hdf5", described[1], 0.5)
    with pytest.raises(UserError, match="1.parquet: has another 'credible_level' than"):
        read_described(described)


def test_bad_images_are_counted_over_all_chunks(target):
    target.bad = 1
    # One of 41, in each of two chunks: 4.8 % of 42.
    parts = [target.part(chunk, 2) for chunk in range(2)]
    with pytest.raises(UserError, match=r"shards.max_rejected: 2 of 42 images \(4.8%\) .* x.png: is empty"):
        target.collect(*parts, max_rejected=0.04)
    assert not list(target.folder.glob("*.*"))
    target.collect(*parts, max_rejected=0.05)
    assert list(pd.read_csv(target.folder / "rejected.csv")["id_str"]) == ["bad0-0", "bad1-0"]
