import io
import json
import struct
import zipfile
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from zoolib import shards
from zoolib.catalog import build_catalog
from zoolib.config.trees import DecisionTree
from zoolib.data import tfrecords
from zoolib.data.catalogs import Catalog, read_catalog, write_catalog
from zoolib.data.images import decode, load_row
from zoolib.job.logs import UserError

# What a record of a TFRecord file begins with: its length, and a checksum of that.
HEADER = 12
TREE = DecisionTree.from_dict({"name": "small", "questions": {"bar": {"answers": ["yes", "no"]}}})
IMAGE = {"size": 16, "color": False, "encoding": "png"}


def outputs(folder, shard, suffix="tfrecord"):
    files = {"shard": f"{shard}.{suffix}", "about": f"{shard}.json", "rejected": f"{shard}.rejected.csv"}
    return SimpleNamespace(**{name: folder / file for name, file in files.items()})


def records(path, about):
    """The galaxies of a shard, read the way that training reads them."""
    import tensorflow as tf

    shape = (about["size"], about["size"], about["channels"])
    found = []
    for example in tf.data.TFRecordDataset(str(path)).map(tfrecords.parse).as_numpy_iterator():
        pixels = decode(example["image"], about["encoding"], shape)
        found.append((example["id_str"].decode(), pixels, example["votes"]))
    return found


def survey(folder, count=20, broken=()):
    """A catalogue of noise images in a zip; `broken` is {number: bytes to store, or None for no image}."""
    random = np.random.default_rng(0)
    archive = folder / "images.zip"
    broken = dict(broken)
    with zipfile.ZipFile(archive, "w") as members:
        for number in range(count):
            buffer = io.BytesIO()
            Image.fromarray(random.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(buffer, "png")
            data = broken.get(number, buffer.getvalue())
            if data is not None:
                members.writestr(f"J{number:02d}.png", data)
    names = [f"J{number:02d}" for number in range(count)]
    table = pd.DataFrame({"id_str": names, "archive": str(archive), "file_loc": ""})
    table["member"] = table["id_str"] + ".png"
    table[TREE.columns] = random.integers(0, 9, (count, 2))
    write_catalog(Catalog(table, TREE.columns, TREE), folder / "train.parquet")
    return folder / "train.parquet"


@pytest.mark.parametrize("encoding, color", [("png", False), ("png", True), ("raw", False), ("jpeg", False)])
def test_shards_hold_the_catalogue_in_its_order(tmp_path, encoding, color):
    path = survey(tmp_path)
    image = {**IMAGE, "encoding": encoding, "color": color}
    found, counts = [], []
    for shard in range(3):
        output = outputs(tmp_path, shard)
        shards.write_shard(path, shard, 3, image, output)
        about = tfrecords.read_sidecar(output.about, TREE.columns, image)
        found += records(output.shard, about)
        counts.append(about["count"])
        assert about["ids"] == [name for name, _, _ in found][-about["count"] :]
        assert DecisionTree.from_dict(about["tree"]) == TREE
        assert about["rejected"] == 0 and (about["split"], about["shard"], about["of"]) == ("train", shard, 3)
        assert pd.read_csv(output.rejected).empty
    table = read_catalog(path).table
    assert counts == [6, 7, 7]
    assert [name for name, _, _ in found] == table["id_str"].tolist()
    assert np.array_equal([votes for _, _, votes in found], table[TREE.columns])
    for row, (_, pixels, _) in zip(table.to_dict("records"), found, strict=True):
        expected = load_row(row, 16, color, raw=encoding == "raw")
        assert abs(pixels.astype(float) - expected).mean() <= (5 if encoding == "jpeg" else 0)


def test_shards_are_made_grey_and_resampled_as_the_encoder_was_trained(tmp_path):
    path, output = survey(tmp_path), outputs(tmp_path, 0)
    image = {**IMAGE, "grey": "luma", "interpolation": "bicubic"}
    shards.write_shard(path, 0, 1, image, output)
    about = tfrecords.read_sidecar(output.about, TREE.columns, image)
    assert (about["grey"], about["interpolation"]) == ("luma", "bicubic")
    rows = read_catalog(path).table.to_dict("records")
    for row, (_, pixels, _) in zip(rows, records(output.shard, about), strict=True):
        with zipfile.ZipFile(row["archive"]) as members, Image.open(members.open(row["member"])) as opened:
            bands = np.asarray(opened, np.float32)
        luma = Image.fromarray(bands @ np.array([0.299, 0.587, 0.114], np.float32))
        expected = np.asarray(luma.resize((16, 16), Image.Resampling.BICUBIC))
        assert np.array_equal(pixels[..., 0], np.clip(np.rint(expected), 0, 255))
    with pytest.raises(
        UserError, match="were made grey by luma, expected mean .image.grey.; write the shards again"
    ):
        tfrecords.read_sidecar(output.about, TREE.columns, IMAGE)


def test_a_bad_image_is_a_row_of_rejected_and_the_run_continues(tmp_path):
    bad = {2: b"", 5: b"no image", 7: b"\x89PNG\r\n\x1a\n"}
    path = survey(tmp_path, broken=bad)
    output = outputs(tmp_path, 0)
    shards.write_shard(path, 0, 1, IMAGE, output)
    rejected = pd.read_csv(output.rejected)
    assert rejected["id_str"].tolist() == ["J02", "J05", "J07"]
    for reason, words in zip(
        rejected["reason"], ["J02.png: the image file is empty", "is not an image", "J07"], strict=True
    ):
        assert words in reason
    about = tfrecords.read_sidecar(output.about)
    assert (about["count"], about["rejected"]) == (17, 3)
    assert [name for name, _, _ in records(output.shard, about)] == about["ids"]
    assert not {"J02", "J05", "J07"} & set(about["ids"])


def test_without_shards_the_rows_with_readable_images_are_kept(tmp_path):
    path = survey(tmp_path, broken={2: b""})
    output = outputs(tmp_path, 0, "parquet")
    shards.write_shard(path, 0, 2, IMAGE, output, enabled=False)
    kept, whole = read_catalog(output.shard), read_catalog(path)
    assert kept.tree == TREE
    expected = whole.table[:10].query("id_str != 'J02'").reset_index(drop=True)
    pd.testing.assert_frame_equal(kept.table, expected)
    # Training learns from the same galaxies, so the hash is the same.
    other = outputs(tmp_path / "shards", 0)
    shards.write_shard(path, 0, 2, IMAGE, other)
    assert tfrecords.read_sidecar(output.about)["source"] == tfrecords.read_sidecar(other.about)["source"]


def test_the_hash_shows_what_a_shard_was_made_from(tmp_path):
    def source(path, image=IMAGE):
        output = outputs(tmp_path, 0, "parquet")
        shards.write_shard(path, 0, 1, image, output, enabled=False)
        return tfrecords.read_sidecar(output.about)["source"]

    first = source(survey(tmp_path))
    assert source(survey(tmp_path)) == first
    assert source(survey(tmp_path), {**IMAGE, "size": 17}) != first
    assert source(survey(tmp_path), {**IMAGE, "crop": 0.5}) == first
    buffer = io.BytesIO()
    Image.new("L", (20, 20)).save(buffer, "png")
    assert source(survey(tmp_path, broken={4: buffer.getvalue()})) != first


def test_labels_are_kept_as_numbers(tmp_path):
    content = read_catalog(survey(tmp_path))
    table = content.table.drop(columns=TREE.columns).assign(mass=np.linspace(-1, 1, 20))
    write_catalog(Catalog(table, ["mass"], None), tmp_path / "val.parquet")
    output = outputs(tmp_path, 0)
    shards.write_shard(tmp_path / "val.parquet", 0, 1, IMAGE, output)
    about = tfrecords.read_sidecar(output.about, ["mass"])
    assert about["tree"] is None
    found = np.array([votes for _, _, votes in records(output.shard, about)])
    np.testing.assert_allclose(found[:, 0], table["mass"], rtol=1e-6)


def test_a_shard_with_only_bad_images_is_empty(tmp_path):
    output = outputs(tmp_path, 0)
    shards.write_shard(survey(tmp_path, count=2, broken={0: b"", 1: b""}), 0, 1, IMAGE, output)
    about = tfrecords.read_sidecar(output.about)
    assert (about["count"], about["rejected"]) == (0, 2) and records(output.shard, about) == []


def test_fewer_galaxies_than_shards(tmp_path):
    path = survey(tmp_path, count=3)
    with pytest.raises(UserError, match="shards.count.train: 3 galaxies cannot fill 4 shards"):
        shards.write_shard(path, 0, 4, IMAGE, outputs(tmp_path / "out", 0))
    assert not (tmp_path / "out").exists()


def test_reading_stops_at_an_unexpected_shard(tmp_path):
    output = outputs(tmp_path, 0, "parquet")
    shards.write_shard(survey(tmp_path), 0, 1, IMAGE, output, enabled=False)
    assert tfrecords.read_sidecar(output.about, TREE.columns, IMAGE)["count"] == 20
    wrong = [
        ((["ring_yes", "ring_no"], IMAGE), "has the tree 'small'.*bar_yes.*expected.*ring_yes"),
        ((TREE.columns[::-1], IMAGE), "another order"),
        ((TREE.columns, {**IMAGE, "size": 300}), "16 pixels wide in 1 channels, expected 300 in 1"),
        ((TREE.columns, {**IMAGE, "color": True}), "expected 16 in 3"),
    ]
    for expected, words in wrong:
        with pytest.raises(UserError, match=words) as caught:
            tfrecords.read_sidecar(output.about, *expected)
        assert str(caught.value).startswith(str(output.about)) and "\n" not in str(caught.value)
    with pytest.raises(UserError, match="sidecar is missing"):
        tfrecords.read_sidecar(tmp_path / "1.json")
    for text in ("", "{}", "[1]"):
        (tmp_path / "1.json").write_text(text)
        with pytest.raises(UserError, match="is not the sidecar"):
            tfrecords.read_sidecar(tmp_path / "1.json")


def test_a_damaged_sidecar_is_a_message(tmp_path):
    path, output = survey(tmp_path), outputs(tmp_path, 0)
    shards.write_shard(path, 0, 2, IMAGE, output)
    written = output.about.read_text()
    about = json.loads(written)
    count = about["count"]
    damaged = [written.replace(f'"count": {count}', f'"count": {count - 1}'), "[" * 100_000]
    # Without a checksum it would be one of an older version, and all else is as it was written.
    for key in set(about) - {"checksum"}:
        damaged.append(written.replace(f'"{key}":', f'"{key.upper()}":'))
        damaged.append(json.dumps({name: about[name] for name in about if name != key}))
    for text in damaged:
        output.about.write_text(text)
        with pytest.raises(UserError, match="is not the sidecar of a shard, or is damaged") as caught:
            tfrecords.read_sidecar(output.about)
        assert str(caught.value).startswith(str(output.about)) and "\n" not in str(caught.value)


def test_a_sidecar_of_an_older_version_has_no_checksum(tmp_path):
    path, output = survey(tmp_path), outputs(tmp_path, 0)
    shards.write_shard(path, 0, 2, IMAGE, output)
    about = json.loads(output.about.read_text())
    del about["checksum"]
    output.about.write_text(json.dumps(about))
    assert tfrecords.read_sidecar(output.about) == about


def test_too_many_bad_images_stop_the_run(tmp_path):
    path = survey(tmp_path, broken={2: b"", 15: b"no image"})
    files = [outputs(tmp_path, shard, "parquet") for shard in range(2)]
    for shard, output in enumerate(files):
        shards.write_shard(path, shard, 2, IMAGE, output, enabled=False)
    abouts, rejected = [file.about for file in files], [file.rejected for file in files]
    summary = tmp_path / "out" / "rejected.csv"
    with pytest.raises(UserError) as caught:
        shards.check_rejected(abouts, rejected, 0.09, summary)
    for words in (
        "shards.max_rejected: 2 of 20 images (10.0%)",
        "9.0%",
        "0.rejected.csv",
        "J02.png: the image file is",
    ):
        assert words in str(caught.value)
    assert not summary.exists()
    # The share of all shards counts, and the limit itself is allowed.
    shards.check_rejected(abouts, rejected, 0.1, summary)
    table = pd.read_csv(summary)
    assert table["id_str"].tolist() == ["J02", "J15"] and (table["split"] == "train").all()


def test_no_bad_image_at_all(tmp_path):
    output = outputs(tmp_path, 0, "parquet")
    shards.write_shard(survey(tmp_path), 0, 1, IMAGE, output, enabled=False)
    shards.check_rejected([output.about], [output.rejected], 0, tmp_path / "rejected.csv")
    assert list(pd.read_csv(tmp_path / "rejected.csv").columns) == ["id_str", "reason", "split"]


def test_real_galaxies_from_zips_and_from_fits(tmp_path, repo, real_data):
    record = real_data / "gz_decals_record"
    tree = DecisionTree.load(repo / "config" / "trees" / "gz_decals_5.yaml")
    entry = {
        "name": "gz_decals_5",
        "tree": tree.to_dict(published=True),
        "table": str(record / "gz_decals_volunteers_5.csv"),
        "archives": [str(record / f"gz_decals_dr5_png_part{part}.zip") for part in (1, 2)],
    }
    files = ("train.parquet", "val.parquet", "test.parquet", "rejected.csv", "summary.csv")
    output = SimpleNamespace(**{file.split(".")[0]: tmp_path / file for file in files})
    build_catalog([entry], {"train": 0.5, "val": 0.25, "test": 0.25}, 42, output)
    written = outputs(tmp_path, 0)
    shards.write_shard(output.train, 0, 2, {**IMAGE, "size": 64}, written)
    about = tfrecords.read_sidecar(written.about, tree.columns, {**IMAGE, "size": 64})
    found = records(written.shard, about)
    assert about["rejected"] == 0 and len(found) == about["count"] > 5
    for _, pixels, votes in found:
        assert pixels[28:36, 28:36].mean() > pixels[:4].mean() + 10
        assert votes.shape == (34,) and votes[:3].sum() >= 3

    table = pd.DataFrame({"id_str": [f"example_{letter}" for letter in "abcde"], "ring_yes": 1, "ring_no": 0})
    table.to_csv(tmp_path / "fits.csv", index=False)
    entry = {
        "name": "fits",
        "tree": {"name": "rings", "questions": {"ring": {"answers": ["yes", "no"]}}},
        "table": str(tmp_path / "fits.csv"),
        "images": str(real_data / "fits"),
    }
    build_catalog([entry], {"train": 0.4, "val": 0.2, "test": 0.4}, 3, output)
    written = outputs(tmp_path / "fits", 0)
    image = {"size": 64, "color": True, "encoding": "raw"}
    shards.write_shard(output.train, 0, 1, image, written)
    about = json.loads(written.about.read_text())
    assert about["rejected"] == 0 and about["count"] > 0
    for _, pixels, _ in records(written.shard, about):
        assert pixels.dtype == np.float32 and len(np.unique(pixels)) > 5000


def written(folder, of=2, **image):
    """All shards of a small survey: [(the files, the sidecar)]."""
    catalog, found = survey(folder), []
    for shard in range(of):
        output = outputs(folder / "train", shard)
        shards.write_shard(catalog, shard, of, {**IMAGE, **image}, output)
        found.append((output, tfrecords.read_sidecar(output.about)))
    return found


def ends_of_records(data):
    """The position after each record of a TFRecord file."""
    ends = [0]
    while ends[-1] < len(data):
        (length,) = struct.unpack_from("<Q", data, ends[-1])
        ends.append(ends[-1] + HEADER + length + 4)
    return ends[1:]


def read_all(files, abouts):
    from zoolib.learning import datasets

    store = datasets.from_shards(files, abouts, IMAGE)
    with datasets.images_read(store):
        return [name for names, _, _ in datasets.stored_batches(store, 8) for name in names.numpy()]


def test_a_cut_shard_is_an_error_before_anything_is_read(tmp_path):
    (first, second), abouts = zip(*written(tmp_path), strict=True)
    files = [first.shard, second.shard]
    assert len(read_all(files, abouts)) == 20
    whole = second.shard.read_bytes()
    for data in (b"", whole[: ends_of_records(whole)[4]], whole[:-1], whole + whole):
        second.shard.write_bytes(data)
        with pytest.raises(UserError) as caught:
            read_all(files, abouts)
        expected = f"{second.shard}: the shard is damaged, it has {len(data):,} bytes, and its sidecar says"
        assert str(caught.value).startswith(f"{expected} {len(whole):,};")
    second.shard.unlink()
    with pytest.raises(UserError, match="1.tfrecord: there is no such shard"):
        read_all(files, abouts)


def test_shards_of_an_older_version_are_counted_while_they_are_read(tmp_path):
    (first, second), abouts = zip(*written(tmp_path), strict=True)
    older = [{key: about[key] for key in about if key not in ("bytes", "file")} for about in abouts]
    whole = second.shard.read_bytes()
    ends = ends_of_records(whole)
    cuts = {0: 0, ends[4]: 5, ends[4] + 5: 5, ends[4] + 60: 5}
    for cut, found in cuts.items():
        second.shard.write_bytes(whole[:cut])
        with pytest.raises(UserError) as caught:
            read_all([first.shard, second.shard], older)
        words = f"1.tfrecord: the shard is damaged, only the first {found} can be read of the 10 galaxies"
        assert words in str(caught.value) and "\n" not in str(caught.value)
    second.shard.write_bytes(whole + whole[: ends[0]])
    with pytest.raises(UserError, match="1.tfrecord: .* it has more than 10 of the 10 galaxies"):
        read_all([first.shard, second.shard], older)


def test_any_flipped_byte_of_a_shard_is_found(tmp_path):
    (first, second), abouts = zip(*written(tmp_path), strict=True)
    files, whole = [first.shard, second.shard], second.shard.read_bytes()
    begin, end = ends_of_records(whole)[2:4]
    # Each byte of the length, which nothing may be allocated for, and of the checksums; some of the content.
    places = [*range(begin, begin + HEADER), begin + 20, (begin + end) // 2, *range(end - 5, end)]
    for place in places:
        flipped = bytearray(whole)
        flipped[place] ^= 0x80
        second.shard.write_bytes(flipped)
        with pytest.raises(UserError, match="1.tfrecord: .* damaged, only the first 3 can be read of the 10"):
            read_all(files, abouts)


def test_a_shard_that_is_another_one_is_refused(tmp_path):
    (output, _), about = written(tmp_path, size=8)[0], tfrecords.read_sidecar(written(tmp_path)[0][0].about)
    older = {key: about[key] for key in about if key not in ("bytes", "file")}
    shards.write_shard(survey(tmp_path), 0, 2, {**IMAGE, "size": 8}, output)
    with pytest.raises(UserError, match="0.tfrecord: .* only the first 0 can be read"):
        read_all([output.shard], [older])
    listed = outputs(tmp_path / "train", 0, "parquet")
    shards.write_shard(survey(tmp_path), 0, 2, IMAGE, listed, enabled=False)
    with pytest.raises(UserError, match="0.tfrecord: the sidecar beside it is about 0.parquet"):
        read_all([output.shard], [tfrecords.read_sidecar(listed.about)])
    assert len(read_all([listed.shard], [tfrecords.read_sidecar(listed.about)])) == 10
    whole = listed.shard.read_bytes()
    for data in (whole[:-1], bytes(len(whole))):
        listed.shard.write_bytes(data)
        with pytest.raises(UserError, match="0.parquet: the shard is damaged"):
            read_all([listed.shard], [tfrecords.read_sidecar(listed.about)])


def test_changed_pixels_are_another_source(tmp_path):
    """The tables stay the same; so do the galaxies' names, votes and order."""

    def sidecar(folder, enabled, *change):
        archive = survey(folder).with_name("images.zip")
        if change:
            rewrite(archive, *change)
        output = outputs(folder, 0, "tfrecord" if enabled else "parquet")
        shards.write_shard(folder / "train.parquet", 0, 1, IMAGE, output, enabled=enabled)
        return tfrecords.read_sidecar(output.about)

    def one_pixel(pixels):
        pixels["J07.png"][10, 10] ^= 128

    def swapped(pixels):
        pixels["J03.png"], pixels["J04.png"] = pixels["J04.png"], pixels["J03.png"]

    for enabled in (True, False):
        # The same pixels in other files.
        first, same = (sidecar(tmp_path, enabled, *change) for change in [(), (lambda pixels: None, 0)])
        assert first["source"] == same["source"] and first["digests"] == same["digests"]
        changed, other = sidecar(tmp_path, enabled, one_pixel), sidecar(tmp_path, enabled, swapped)
        assert len({about["source"] for about in (first, changed, other)}) == 3
        pairs = zip(first["digests"], changed["digests"], strict=True)
        differ = [name for name, (one, two) in zip(first["ids"], pairs, strict=True) if one != two]
        assert differ == ["J07"]
        assert sorted(first["digests"]) == sorted(other["digests"])


def rewrite(archive, change, level=9):
    """Store the images of a zip again, changed and packed in another way, under the same names."""
    with zipfile.ZipFile(archive) as members:
        pixels = {name: np.array(Image.open(members.open(name))) for name in members.namelist()}
    change(pixels)
    with zipfile.ZipFile(archive, "w") as members:
        for name, image in pixels.items():
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "png", compress_level=level)
            members.writestr(name, buffer.getvalue())


def collect(folder, splits, of=1, image=IMAGE, enabled=True):
    """Write and check the shards of some catalogues, as a run does."""
    abouts, rejected = [], []
    for split in splits:
        for shard in range(of):
            output = outputs(folder / "shards" / split, shard, "tfrecord" if enabled else "parquet")
            shards.write_shard(folder / f"{split}.parquet", shard, of, image, output, enabled=enabled)
            abouts.append(output.about)
            rejected.append(output.rejected)
    shards.check_rejected(abouts, rejected, 0.5, folder / "shards" / "rejected.csv")


def test_an_image_in_two_splits_is_refused(tmp_path):
    """The catalogue compares files; a copy that is packed in another way is found by its pixels."""
    content = read_catalog(survey(tmp_path))
    rewrite(tmp_path / "images.zip", lambda pixels: pixels.update({"J15.png": pixels["J03.png"]}))
    for split, rows in {"train": slice(0, 10), "val": slice(10, 13), "test": slice(13, 20)}.items():
        part = Catalog(content.table[rows].reset_index(drop=True), content.columns, content.tree)
        write_catalog(part, tmp_path / f"{split}.parquet")
    collect(tmp_path, ["train", "val"], of=2)
    for enabled in (True, False):
        with pytest.raises(
            UserError, match=r"1 image\(s\): J03 \(train\) and J15 \(test\); remove"
        ) as caught:
            collect(tmp_path, ["train", "val", "test"], enabled=enabled)
        assert "\n" not in str(caught.value)


def test_images_without_content_may_be_in_two_splits(tmp_path):
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20), (9, 9, 9)).save(buffer, "png")
    content = read_catalog(survey(tmp_path, broken={3: buffer.getvalue(), 15: buffer.getvalue()}))
    for split, rows in {"train": slice(0, 10), "test": slice(10, 20)}.items():
        part = Catalog(content.table[rows].reset_index(drop=True), content.columns, content.tree)
        write_catalog(part, tmp_path / f"{split}.parquet")
    collect(tmp_path, ["train", "test"])


def test_shards_beyond_the_count_are_deleted(tmp_path):
    survey(tmp_path)
    folder = tmp_path / "shards" / "train"
    collect(tmp_path, ["train"], of=4)
    others = ["notes.txt", "10.tfrecord.old", "old-2.json", "sub"]
    for name in others[:3]:
        (folder / name).write_text("mine")
    (folder / "sub").mkdir()
    (folder / "sub" / "3.json").write_text("mine")
    names = [f"{shard}{suffix}" for shard in range(2) for suffix in (".json", ".rejected.csv", ".tfrecord")]
    collect(tmp_path, ["train"], of=2)
    assert {path.name for path in folder.iterdir()} == {*names, *others}
    # Without shards, those with pixels are left over, and the sidecars are no longer theirs.
    collect(tmp_path, ["train"], of=1, enabled=False)
    assert {path.name for path in folder.iterdir()} == {"0.json", "0.rejected.csv", "0.parquet", *others}
    assert (folder / "sub" / "3.json").exists()


def test_a_check_that_fails_deletes_nothing(tmp_path):
    survey(tmp_path, broken={number: b"" for number in range(12)})
    folder = tmp_path / "shards" / "train"
    (folder).mkdir(parents=True)
    (folder / "7.tfrecord").write_text("of an earlier count")
    with pytest.raises(UserError, match="max_rejected"):
        collect(tmp_path, ["train"])
    assert (folder / "7.tfrecord").exists()
