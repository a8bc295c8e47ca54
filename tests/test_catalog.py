import io
import json
import os
import shutil
import zipfile
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from zoolib import catalog
from zoolib.catalog import build_catalog
from zoolib.config.trees import DecisionTree
from zoolib.data.catalogs import read_catalog
from zoolib.data.partition import cut, hash_positions
from zoolib.data.tables import read_table
from zoolib.job.logs import UserError

TREE = {
    "name": "small",
    "questions": {
        "shape": {"answers": ["smooth", "disk"]},
        "bar": {"answers": ["yes", "no"], "after": "shape_disk"},
    },
}
COLUMNS = ["shape_smooth", "shape_disk", "bar_yes", "bar_no"]
SPLIT = {"train": 0.7, "val": 0.1, "test": 0.2}


def png(number=0):
    buffer = io.BytesIO()
    Image.new("RGB", (4, 4), (number, 0, 0)).save(buffer, "png")
    return buffer.getvalue()


def galaxies(count=60):
    votes = np.random.default_rng(0).integers(0, 20, (count, 4))
    names = [f"J{number:03d}" for number in range(count)]
    return pd.DataFrame(votes, columns=COLUMNS).assign(id_str=names, redshift=np.arange(count) / 100)


class Survey:
    """A small survey in a folder: a table, a zip, and where the results go."""

    def __init__(self, folder):
        self.folder = folder
        files = ("train.parquet", "val.parquet", "test.parquet", "rejected.csv", "summary.csv")
        self.output = SimpleNamespace(**{file.split(".")[0]: folder / "out" / file for file in files})
        with zipfile.ZipFile(folder / "images.zip", "w") as archive:
            for number, name in enumerate(galaxies()["id_str"]):
                archive.writestr(f"top/{name[:2]}/{name}.png", png(number))
        self.entry = {"name": "small", "tree": TREE, "archives": [str(folder / "images.zip")], "min_votes": 0}

    def build(self, table, /, suffix="csv", split=SPLIT, seed=1, **entry):
        path = self.folder / f"table.{suffix}"
        table.to_csv(path, index=False) if suffix == "csv" else table.to_parquet(path)
        entries = [{**self.entry, "table": str(path), **entry}]
        build_catalog(entries, split, seed, self.output)
        return self

    def __getitem__(self, split):
        return read_catalog(getattr(self.output, split)).table

    @property
    def all(self):
        return pd.concat([self[split] for split in catalog.SPLITS], ignore_index=True)

    @property
    def rejected(self):
        return pd.read_csv(self.output.rejected).set_index("id_str")["reason"]

    @property
    def summary(self):
        return pd.read_csv(self.output.summary)

    def nothing_written(self):
        return not (self.folder / "out").exists() or not list((self.folder / "out").iterdir())


@pytest.fixture
def survey(tmp_path):
    return Survey(tmp_path)


def test_every_galaxy_is_in_one_split_with_its_votes_and_its_image(survey):
    table = galaxies()
    survey.build(table)
    found = survey.all.set_index("id_str").loc[table["id_str"]]
    assert len(survey.all) == 60 and len(survey.rejected) == 0
    assert np.array_equal(found[COLUMNS], table[COLUMNS]) and (found[COLUMNS].dtypes == np.int32).all()
    assert found["member"].tolist() == [f"top/{name[:2]}/{name}.png" for name in table["id_str"]]
    assert (found["file_loc"] == "").all()
    about = read_catalog(survey.output.train)
    assert about.tree == DecisionTree.from_dict(TREE) and about.columns == COLUMNS
    assert list(about.table.columns) == ["id_str", "archive", "member", "file_loc", *COLUMNS]


def test_parquet_with_the_names_as_its_index_gives_the_same_catalogue(survey):
    table = galaxies()
    survey.build(table)
    before = survey.all
    survey.build(table.set_index("id_str").sample(frac=1, random_state=1), "parquet")
    pd.testing.assert_frame_equal(survey.all, before)


def test_new_galaxies_and_another_order_move_no_galaxy_to_another_split(survey):
    table = galaxies()
    survey.build(table[:40])
    before = {split: set(survey[split]["id_str"]) for split in catalog.SPLITS}
    survey.build(table.sample(frac=1, random_state=2))
    for split, names in before.items():
        assert names <= set(survey[split]["id_str"])
    survey.build(table[:40], seed=2)
    assert before["train"] != set(survey["train"]["id_str"])


def test_shares_and_order_are_those_of_the_hash():
    table = pd.DataFrame({"id_str": [f"J{number}" for number in range(20_000)]})
    parts = cut(table, [0.7, 0.1, 0.2], seed=42)
    np.testing.assert_allclose([len(part) / len(table) for part in parts], [0.7, 0.1, 0.2], atol=0.01)
    for part, (low, high) in zip(parts, [(0, 0.7), (0.7, 0.8), (0.8, 1)], strict=True):
        position = hash_positions(part["id_str"], 42)
        assert (np.diff(position) > 0).all() and low <= position[0] and position[-1] < high
    # The contract: the start of `printf 42:J0 | sha256sum`, as a fraction.
    assert hash_positions(["J0"], 42)[0] == pytest.approx(0x981FEE43D1FD485B / 2**64, abs=1e-15)


def side_of(survey):
    """{id_str: its split}."""
    return {name: split for split in catalog.SPLITS for name in survey[split]["id_str"]}


def test_a_group_is_in_one_split_and_the_others_stay_where_they_are(survey):
    table = galaxies()
    before = side_of(survey.build(table, split={**SPLIT, "group": None}))
    plate = [f"p{number}" for number in range(8)] * 3 + [None] * 36
    after = side_of(survey.build(table.assign(plate=plate), split={**SPLIT, "group": "plate"}))
    assert len(after) == 60
    names = table["id_str"].groupby(pd.Series(plate))
    assert names.apply(lambda group: len({before[name] for name in group})).max() > 1
    assert (names.apply(lambda group: len({after[name] for name in group})) == 1).all()
    assert all(after[name] == before[name] for name in table["id_str"][24:])
    # A group does not depend on the other galaxies either.
    some = side_of(survey.build(table.assign(plate=plate)[4:], split={**SPLIT, "group": "plate"}))
    assert all(after[name] == side for name, side in some.items())
    # Any slice of a split is a random sample, groups or not.
    assert (np.diff(hash_positions(survey["train"]["id_str"], 1)) > 0).all()


def test_a_group_that_no_table_has_is_one_sentence(survey):
    with pytest.raises(UserError, match="table.csv: has no column 'plate', which split.group names; name a"):
        survey.build(galaxies(), split={**SPLIT, "group": "plate"})
    assert survey.nothing_written()


def test_groups_join_campaigns(survey):
    """J000 to J029 of one campaign are K000 to K029 of another, by a column; each table has its own."""
    table = galaxies().assign(name=range(60))
    paths = [survey.folder / "one.csv", survey.folder / "two.parquet"]
    table.to_csv(paths[0], index=False)
    other = table[:30].assign(name=[None, *range(1, 30)])
    # The galaxy K000 is in the second table only by the name of its image.
    files = other["id_str"] + ".png"
    renamed = {column: column.replace("shape", "form") for column in COLUMNS}
    other.assign(id_str="K" + other["id_str"].str[1:], file_loc=files).rename(columns=renamed).to_parquet(
        paths[1]
    )
    questions = {question.replace("shape", "form"): about for question, about in TREE["questions"].items()}
    questions["bar"] = {**questions["bar"], "after": "form_disk"}
    second = {"name": "other", "questions": questions}
    entries = [
        {**survey.entry, "table": str(paths[0])},
        {**survey.entry, "table": str(paths[1]), "name": "other", "tree": second},
    ]
    build_catalog(entries, {**SPLIT, "group": "name"}, 1, survey.output)
    found = side_of(survey)
    assert len(found) == 90
    assert all(found[f"J{number:03d}"] == found[f"K{number:03d}"] for number in range(30))


@pytest.mark.parametrize("way", ["dots", "a link", "a hard link", "a linked folder", "in a zip"])
def test_one_image_under_two_names_is_in_one_split(survey, way):
    folder = survey.folder / "pictures"
    folder.mkdir()
    table = galaxies().assign(file_loc=[f"{name}.png" for name in galaxies()["id_str"]])
    pictures = {name: png(number) for number, name in enumerate(table["file_loc"])}
    for name, data in pictures.items():
        (folder / name).write_bytes(data)
    again = table[:30].assign(id_str="K" + table["id_str"][:30].str[1:])
    if way == "dots":
        again["file_loc"] = "../pictures/./" + again["file_loc"]
    elif way == "a linked folder":
        (survey.folder / "again").symlink_to(folder)
        again["file_loc"] = "../again/" + again["file_loc"]
    else:
        for name in again["file_loc"]:
            os.link(folder / name, folder / f"K{name}") if way == "a hard link" else None
            (folder / f"K{name}").symlink_to(name) if way == "a link" else None
            shutil.copy(folder / name, folder / f"K{name}") if way == "in a zip" else None
        again["file_loc"] = "K" + again["file_loc"]
    entry = {"archives": None, "images": str(folder)}
    if way == "in a zip":
        entry = {"archives": [str(survey.folder / f"{part}.zip") for part in "ab"]}
        for path, names in zip(entry["archives"], (table["file_loc"], again["file_loc"]), strict=True):
            with zipfile.ZipFile(path, "w") as archive:
                for name in names:
                    archive.write(folder / name, name)
    before = side_of(survey.build(table, **entry))
    found = side_of(survey.build(pd.concat([table, again]), **entry))
    assert len(found) == 90
    assert all(found[f"J{number:03d}"] == found[f"K{number:03d}"] for number in range(30))
    # The first of the names decides, and an image of its own changes nothing.
    assert {name: found[name] for name in before} == before


def test_selection_is_counted_and_not_rejected(survey):
    table = galaxies()
    survey.build(table, min_votes=20, query="redshift < 0.3 and `shape_smooth` >= 0")
    votes = table["shape_smooth"] + table["shape_disk"]
    expected = table["id_str"][(votes >= 20) & (table["redshift"] < 0.3)]
    assert set(survey.all["id_str"]) == set(expected)
    assert len(survey.rejected) == 0
    steps = survey.summary.set_index("step")["galaxies"]
    assert steps.iloc[0] == 60 and steps.filter(like="query").item() == 30
    assert steps.filter(like="enough votes").item() == steps["with an image"] == len(expected)
    assert sum(steps[f"split {split}"] for split in catalog.SPLITS) == len(expected)


@pytest.mark.parametrize(
    "value, found",
    [(-1, "-1"), (2.5, "2.5"), (np.nan, "a blank"), ("", "a blank"), ("many", "'many'"), (1e12, "1e+12")],
)
def test_invalid_votes_reject_their_row(survey, value, found):
    table = galaxies().astype({"bar_yes": object})
    table.loc[3, "bar_yes"] = value
    survey.build(table)
    assert list(survey.rejected.index) == ["J003"]
    assert survey.rejected["J003"] == (
        f"table.csv, line 5: the votes 'bar_yes': found {found}, expected a whole number of 0 or more, and 0"
        " where nobody was asked."
    )
    assert len(survey.all) == 59 and "J003" not in set(survey.all["id_str"])


def test_a_galaxy_listed_twice(survey):
    table = galaxies()
    again = table.iloc[[1, 2]].copy()
    again.loc[2, "bar_no"] += 1
    survey.build(pd.concat([table, again]))
    rejected = pd.read_csv(survey.output.rejected)
    # With the same votes it counts once; with different votes it is not known which are true.
    assert sorted(rejected["id_str"]) == ["J001", "J002", "J002"]
    assert (survey.all["id_str"] == "J001").sum() == 1 and "J002" not in set(survey.all["id_str"])
    assert "line 62: the galaxy 'J001' is listed already (table.csv, line 3)" in " ".join(rejected["reason"])


def test_a_row_without_a_name_or_an_image(survey):
    table = galaxies()
    table.loc[7, "id_str"] = None
    table.loc[8, "id_str"] = "J999"
    survey.build(table)
    rejected = pd.read_csv(survey.output.rejected)
    assert rejected["reason"].tolist() == [
        "table.csv, line 9: 'id_str' is blank; every galaxy needs a name.",
        "no image 'J999.png' in images.zip; get it or remove the row.",
    ]
    assert len(survey.all) == 58


def test_names_that_look_like_numbers_stay_names(survey):
    table = galaxies(3).assign(id_str=["001", "002", "587732591714893851"])
    table.to_csv(survey.folder / "numbers.csv", index=False)
    assert read_table(survey.folder / "numbers.csv")["id_str"].tolist() == table["id_str"].tolist()


@pytest.mark.parametrize("named", ["relative", "beside", "absolute", "base name", "by id"])
def test_images_in_a_folder(survey, named):
    folder = survey.folder / "pictures"
    (folder / "J0").mkdir(parents=True)
    table = galaxies()
    files = [folder / "J0" / f"{name}.png" for name in table["id_str"]]
    for file in files:
        file.write_bytes(png())
    if named != "by id":
        table["file_loc"] = {
            "relative": [f"J0/{file.name}" for file in files],
            "beside": [f"pictures/J0/{file.name}" for file in files],
            "absolute": [str(file) for file in files],
            "base name": [f"elsewhere/{file.name}" for file in files],
        }[named]
    survey.build(table, archives=None, images=str(folder))
    found = survey.all.set_index("id_str")["file_loc"]
    assert found[table["id_str"]].tolist() == [str(file) for file in files]
    assert (survey.all["archive"] == "").all()


def test_an_image_that_is_there_twice_is_not_guessed(survey):
    for place in ("a", "b"):
        (survey.folder / "pictures" / place).mkdir(parents=True)
        for name in galaxies()["id_str"][: 60 if place == "a" else 1]:
            (survey.folder / "pictures" / place / f"{name}.png").write_bytes(png())
    survey.build(galaxies(), archives=None, images=str(survey.folder / "pictures"))
    assert "several files are called 'J000.png'" in survey.rejected["J000"]
    assert len(survey.all) == 59


def test_several_tables_of_one_tree_become_one_catalogue(survey):
    table = galaxies()
    paths = [survey.folder / "one.csv", survey.folder / "two.csv"]
    table[:35].to_csv(paths[0], index=False)
    table[30:].rename(columns={"id_str": "iauname"}).to_csv(paths[1], index=False)
    entries = [{**survey.entry, "table": str(path)} for path in paths]
    build_catalog(entries, SPLIT, 1, survey.output)
    assert len(survey.all) == 60 and sorted(survey.rejected.index) == [f"J{n:03d}" for n in range(30, 35)]


@pytest.mark.parametrize(
    "change, entry, words",
    [
        (
            lambda t: t.drop(columns="bar_yes"),
            {},
            "1 of the 4 vote columns of the tree 'small' are missing (bar_yes)",
        ),
        (lambda t: t.drop(columns="id_str"), {}, "no column id_str or iauname"),
        (lambda t: t, {"id": "name"}, "has no column 'name', which catalogs.small.id names"),
        (lambda t: t, {"location": "where"}, "has no column 'where', which catalogs.small.location names"),
        (lambda t: t, {"query": "redshft < 1"}, "redshft"),
        (lambda t: t, {"query": "redshift <"}, "catalogs.small.query"),
        (lambda t: t, {"query": "redshift + 1"}, "is not true or false for each row"),
        (lambda t: t, {"query": "redshift > 9"}, "none of 60 galaxies is left after the step 'query"),
        (lambda t: t, {"min_votes": 99}, "none of 60 galaxies is left after the step 'enough votes"),
        (lambda t: t[:0], {}, "has no rows"),
        (
            lambda t: t.assign(bar_no=-1),
            {},
            "none of 60 galaxies passes the step 'with a name and usable votes'",
        ),
        (
            lambda t: t.assign(id_str="x" + t["id_str"]),
            {},
            "step 'with an image', the first: no image 'xJ000.png'",
        ),
        (lambda t: t[:2], {}, "split.val: none of the 2 galaxies"),
        (lambda t: t, {"archives": ["no.zip"]}, "no.zip"),
        (lambda t: t, {"archives": None}, "catalogs[].images"),
        (lambda t: t, {"archives": None, "images": "nowhere"}, "nowhere: there is no such folder"),
        (lambda t: t, {"table": "no.csv"}, "no.csv: there is no such table"),
        (lambda t: t, {"table": __file__}, "expected a table that ends in"),
    ],
)
def test_a_wrong_table_stops_the_run_with_one_message(survey, change, entry, words):
    with pytest.raises(UserError) as caught:
        survey.build(change(galaxies()), **entry)
    assert words in str(caught.value) and "\n" not in str(caught.value)
    assert survey.nothing_written()


@pytest.mark.parametrize("suffix", ["parquet", "csv", "csv.gz"])
def test_a_damaged_table(tmp_path, suffix):
    path = tmp_path / f"table.{suffix}"
    path.write_bytes(b"\x1f\x8b\x00\xff" * 9)
    with pytest.raises(UserError, match="is not a readable"):
        read_table(path)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="is not a readable"):
        read_table(path)


def test_shares_must_sum_to_one(survey):
    with pytest.raises(UserError, match="split: the shares"):
        survey.build(galaxies(), split={"train": 0.7, "val": 0.2, "test": 0.2})


def test_a_table_that_is_not_our_catalogue_is_refused(survey):
    galaxies().to_parquet(survey.folder / "table.parquet")
    with pytest.raises(UserError, match="not a catalogue of this project"):
        read_catalog(survey.folder / "table.parquet")


def resolved(repo, name):
    return DecisionTree.load(repo / "config" / "trees" / f"{name}.yaml").to_dict(published=True)


def test_the_miniature_record(survey, repo, real_data):
    record = real_data / "gz_decals_record"
    entry = {
        "name": "gz_decals_5",
        "tree": json.loads(json.dumps(resolved(repo, "gz_decals_5"))),
        "table": str(record / "gz_decals_volunteers_5.csv"),
        "archives": [str(record / f"gz_decals_dr5_png_part{part}.zip") for part in (1, 2)],
        "min_votes": 3,
        "query": None,
    }
    build_catalog([entry], SPLIT, 42, survey.output)
    steps = survey.summary.set_index("step")["galaxies"]
    assert steps.iloc[0] == 1457 and steps["with an image"] == 56
    assert len(survey.rejected) == 1457 - 56 and survey.rejected.str.startswith("no image 'dr5/").all()
    found = survey.all
    # Part 1 has a folder at its top, part 2 has none.
    tops = found.groupby(found["archive"].str[-5:-4])["member"].apply(
        lambda names: set(names.str.split("/").str[0])
    )
    assert tops["1"] == {"gz_decals_dr5_png_part1"} and all(len(top) == 4 for top in tops["2"])
    table = pd.read_csv(entry["table"]).set_index("iauname").loc[found["id_str"]]
    columns = read_catalog(survey.output.train).columns
    assert np.array_equal(found[columns], table[columns])
    totals = found[columns[:3]].sum(axis=1).to_numpy()
    assert np.array_equal(totals, table["smooth-or-featured_total-votes"])


def test_galaxy_zoo_2_by_its_published_names(survey, repo, real_data):
    table = real_data / "gz2_stripe82.csv"
    entry = {
        "name": "gz2",
        "tree": resolved(repo, "gz2"),
        "table": str(table),
        "images": str(real_data / "images"),
    }
    build_catalog([entry], SPLIT, 42, survey.output)
    found = survey.all.set_index("id_str")
    assert len(found) == 33 and len(survey.rejected) == 0
    votes = pd.read_csv(table).set_index("id_str").loc[found.index]
    assert (found["bar_no"] == votes["t03_bar_a07_no_bar_count"]).all()
    assert (found["spiral-winding_loose"] == votes["t10_arms_winding_a30_loose_count"]).all()
    assert found["file_loc"].iloc[0] == str(real_data / "images" / f"{found.index[0]}.png")
