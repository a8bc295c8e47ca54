"""A sample downloads only its galaxies' bytes, depends only on its seed, and continues where it stopped."""

import hashlib
import zipfile
from types import SimpleNamespace

import pandas as pd
import pytest
from zenodo_server import PARTS, TABLE
from zoolib.download import sample_record
from zoolib.job.logs import UserError
from zoolib.zenodo.archives import EXTRA, HEADER, TAIL
from zoolib.zenodo.checked import FOLDER
from zoolib.zenodo.client import Client

RECORD = 99990001


def draw(served, out, galaxies=12, seed=1, table=None, archives=PARTS):
    table = table or served.folder / TABLE
    output = out / table.name, out / "sample.zip"
    sample_record(
        RECORD, table, archives, galaxies, seed, SimpleNamespace(table=output[0], archive=output[1])
    )
    return output


def contents(path):
    with zipfile.ZipFile(path) as packed:
        return {info.filename: packed.read(info) for info in packed.infolist()}


def most_bytes(sizes, parts=2):
    return sum(sizes) + len(sizes) * (HEADER + EXTRA + 100) + parts * TAIL


def test_a_sample_of_real_galaxies_downloads_only_their_bytes(zenodo, tmp_path):
    names = [f"gz_decals_dr5_png_part{n}.zip" for n in (1, 2)]
    table, archive = draw(zenodo, tmp_path / "s", galaxies=20, archives=names)
    rows = pd.read_csv(table)
    images = contents(archive)
    assert len(rows) == 20 and sorted(images) == sorted(f"{n[:4]}/{n}.png" for n in rows["iauname"])
    assert all(image[:8] == b"\x89PNG\r\n\x1a\n" for image in images.values())
    with pytest.raises(
        UserError, match=r"56 of its galaxies have an image .* zenodo\.sample is 2000; set it to 56"
    ):
        draw(zenodo, tmp_path / "s", galaxies=2000, archives=names)
    zenodo.forget()
    draw(zenodo, tmp_path / "again", galaxies=20, archives=names)
    assert zenodo.requests["record"] == 1 and sum(zenodo.requests.values()) <= 1 + 2 + 20
    assert sum(zenodo.served.values()) <= most_bytes([len(image) + 200 for image in images.values()])
    assert (tmp_path / "again" / "sample.zip").read_bytes() == archive.read_bytes()


def test_a_sample_keeps_rows_and_images_as_they_are(served, tmp_path):
    table, archive = draw(served, tmp_path / "s")
    original = (served.folder / TABLE).read_text().splitlines()
    sampled = table.read_text().splitlines()
    assert sampled == [line for line in original if line in set(sampled)] and len(sampled) == 13
    all_images = {
        name.rsplit("/")[-1]: image
        for part in PARTS
        for name, image in contents(served.folder / part).items()
    }
    images = contents(archive)
    assert len(images) == 12
    assert all(image == all_images[name.rsplit("/")[-1]] for name, image in images.items())
    assert sorted(path.name for path in archive.parent.iterdir()) == [FOLDER, TABLE, "sample.zip"]


def test_a_sample_depends_only_on_its_seed(served, tmp_path):
    rows = pd.read_csv(served.folder / TABLE, dtype=str)
    shuffled = tmp_path / "shuffled" / "votes.parquet"
    shuffled.parent.mkdir()
    rows.sample(frac=1, random_state=3).to_parquet(shuffled)
    _, one = draw(served, tmp_path / "one")
    table, two = draw(served, tmp_path / "two", table=shuffled)
    assert one.read_bytes() == two.read_bytes()
    drawn = pd.read_parquet(table)
    assert len(drawn) == 12 and list(drawn.columns) == list(rows.columns)
    _, other = draw(served, tmp_path / "other", seed=2)
    assert set(contents(other)) != set(contents(one))


def test_a_sample_has_galaxies_of_every_split(served, tmp_path):
    # The catalogue is split by the hash of "seed:id"; a sample by this hash would be in the training split.
    table, _ = draw(served, tmp_path / "s", galaxies=30)
    places = [
        int(hashlib.sha256(f"1:{name}".encode()).hexdigest()[:8], 16) / 16**8
        for name in pd.read_csv(table)["iauname"]
    ]
    assert max(places) > 0.9 and min(places) < 0.2


def test_a_sample_continues_where_it_stopped(served, tmp_path, monkeypatch):
    monkeypatch.setattr("zoolib.zenodo.archives.GAP", -1)
    monkeypatch.setattr("zoolib.zenodo.archives.LONGEST", 0)
    part = Client.part

    def limited(self, file, start, stop):
        if sum(served.requests.values()) >= 10:
            raise KeyboardInterrupt
        return part(self, file, start, stop)

    monkeypatch.setattr(Client, "part", limited)
    with pytest.raises(KeyboardInterrupt):
        draw(served, tmp_path / "s")
    # One request for the record, one for the end of each archive.
    assert sum(served.requests.values()) == 10
    parts = list((tmp_path / "s" / ".sample.zip.parts").iterdir())
    assert len(parts) == 7 and not (tmp_path / "s" / "sample.zip").exists()
    # A damaged image is fetched again.
    parts[0].write_bytes(b"damaged")
    monkeypatch.setattr(Client, "part", part)
    served.forget()
    _, archive = draw(served, tmp_path / "s")
    assert sum(served.requests.values()) == 3 + 12 - 6
    _, again = draw(served, tmp_path / "again")
    assert archive.read_bytes() == again.read_bytes()


def test_a_sample_respects_the_rate_limit(served, tmp_path):
    served.limit = (6, 1.0)
    draw(served, tmp_path / "s", galaxies=12)
    assert served.refused == 0 and sum(served.requests.values()) > 6


def test_a_sample_survives_failures(served, tmp_path, waits):
    served.fail(503)
    served.cuts = [1000, 2000]
    _, archive = draw(served, tmp_path / "s")
    assert len(contents(archive)) == 12


def test_a_sample_needs_byte_ranges(served, tmp_path):
    with open(served.folder / PARTS[0], "ab") as file:
        file.truncate(1 << 30)
    served.entry(PARTS[0])["size"] = 1 << 30
    served.whole_only = {"content", "page"}
    with pytest.raises(
        UserError, match=r"200 instead of 206.*complete file of 1\.1 GB.*nothing was downloaded"
    ):
        draw(served, tmp_path / "s")
    # The bytes that were in the buffers of the connection when it was closed.
    assert sum(served.served.values()) < 50_000_000
    assert not (tmp_path / "s" / "sample.zip").exists()


def test_a_sample_from_the_other_address(served, tmp_path):
    served.whole_only = {"content"}
    _, archive = draw(served, tmp_path / "s")
    assert len(contents(archive)) == 12
    # Each archive is requested from the wrong address once.
    assert len(served.ranges) == sum(served.requests.values()) - 1 - 2


def test_a_sample_of_the_wrong_things(served, tmp_path):
    with pytest.raises(UserError, match=r"record 99990001 has no file 'part3\.zip'"):
        draw(served, tmp_path / "s", archives=["part3.zip"])
    served.missing.add(PARTS[0])
    with pytest.raises(UserError, match=r"part1\.zip is not there: .* 404"):
        draw(served, tmp_path / "s")
    served.missing.clear()
    served.entry(PARTS[0])["size"] += 7
    with pytest.raises(
        UserError, match=r"part1\.zip: .* bytes of it, expected [0-9,]+; check zenodo\.record"
    ):
        draw(served, tmp_path / "s")
    table = tmp_path / "own.csv"
    table.write_text("name,ra\nJ1,2\n")
    with pytest.raises(UserError, match=r"own\.csv: has no column id_str or iauname"):
        draw(served, tmp_path / "s", table=table)
