"""The check that the tables of a record hold the numbers of galaxies that are known of it."""

import json

import pandas as pd
import pytest
import yaml
from pipeline import REPO, copy_of_the_repository, overlay, snakemake
from zenodo_server import ZenodoServer
from zoolib.check_record import check_record
from zoolib.config.published import read_checks
from zoolib.job.logs import UserError

TABLE = "volunteers.csv"
CHECKS = {
    "tables": {"votes": TABLE},
    "counts": [
        {"what": "galaxies", "table": "votes", "expected": 3},
        {"what": "many votes", "table": "votes", "where": "`a-b_total-votes` >= 30", "expected": 2},
        {"what": "new", "table": "votes", "where": "old == True", "expected": 1},
    ],
}


@pytest.fixture
def small(tmp_path):
    """A table of three rows, and the checks that it passes."""
    table = {"iauname": ["J1", "J2", "J2"], "a-b_total-votes": [30, 5, 40], "old": [True, False, None]}
    pd.DataFrame(table).to_csv(tmp_path / TABLE, index=False)
    (tmp_path / "checks.yaml").write_text(yaml.safe_dump({"checks": CHECKS}))
    return tmp_path


def check(folder, table=TABLE):
    check_record([folder / table], folder / "checks.yaml", folder / "found.csv")
    return pd.read_csv(folder / "found.csv")


def test_counts_of_rows_and_of_choices(small):
    found = check(small)
    assert list(found["found"]) == [3, 2, 1]
    assert set(found["verdict"]) == {"right"}


def test_parquet_counts_the_same(small):
    pd.read_csv(small / TABLE).to_parquet(small / "volunteers.parquet")
    checks = CHECKS | {"tables": {"votes": "volunteers.parquet"}}
    (small / "checks.yaml").write_text(yaml.safe_dump({"checks": checks}))
    assert list(check(small, "volunteers.parquet")["found"]) == [3, 2, 1]


def test_a_wrong_count_is_an_error_after_the_table_is_written(small):
    pd.read_csv(small / TABLE).head(2).to_csv(small / TABLE, index=False)
    with pytest.raises(
        UserError, match=r"2 of 3 counts are wrong, the first is 'galaxies' \(expected 3, found 2"
    ):
        check(small)
    found = pd.read_csv(small / "found.csv")
    assert list(found["verdict"]) == ["wrong", "wrong", "right"]


def test_a_missing_column_and_a_missing_table_are_errors(small):
    with pytest.raises(UserError, match="names 'volunteers.csv', which the folder of zenodo.local does"):
        check_record([], small / "checks.yaml", small / "found.csv")
    pd.read_csv(small / TABLE).drop(columns="a-b_total-votes").to_csv(small / TABLE, index=False)
    with pytest.raises(UserError, match="cannot count the rows with '`a-b_total-votes` >= 30'"):
        check(small)
    (small / TABLE).write_bytes(b"\x00\xff")
    with pytest.raises(UserError, match="is not a readable CSV table"):
        check(small)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"counts": []}, "expected checks.tables, a mapping, and checks.counts"),
        ({"tables": None}, "expected checks.tables, a mapping, and checks.counts"),
        (
            {"counts": [{"what": "a", "table": "votes"}]},
            r"counts\[0\] is .* expected the keys what, table and expected, and where",
        ),
        (
            {"counts": [{"what": "a", "table": "sky", "expected": 1}]},
            r"counts.0.\.table is 'sky', expected one of checks\.tables: votes",
        ),
    ],
)
def test_checks_that_cannot_be_read(small, change, message):
    (small / "checks.yaml").write_text(yaml.safe_dump({"checks": CHECKS | change}))
    with pytest.raises(UserError, match=message):
        check(small)


def test_a_file_of_checks_that_is_not_there(small):
    with pytest.raises(UserError, match="there is no such file with the expected counts of the record"):
        read_checks(small / "zenodo_1.yaml")
    (small / "zenodo_1.yaml").write_text("checks: [")
    with pytest.raises(UserError, match="is not valid YAML"):
        read_checks(small / "zenodo_1.yaml")


def test_the_real_records_checks_agree_with_each_other(repo):
    tables, counts = read_checks(repo / "config" / "published" / "zenodo_4573248.yaml")
    files = yaml.safe_load((repo / "config" / "published" / "zenodo_4573248.yaml").read_text())["files"]
    assert set(tables.values()) <= set(files)
    expected = {check["what"]: check["expected"] for check in counts}
    groups = [number for what, number in expected.items() if what.startswith("upload group")]
    assert sum(groups) == expected["galaxies of GZD-5"] == 253_286
    assert expected["galaxies with posteriors"] == 92_960 + 253_286 - 32_457
    assert {249_581, 5_378, 43_672} < set(expected.values())


@pytest.fixture(scope="module")
def miniature(real_data, tmp_path_factory):
    """A copy of the repository with checks for the miniature of the record."""
    copy = copy_of_the_repository(tmp_path_factory.mktemp("check") / "repo")
    record = json.loads((real_data / "gz_decals_record" / "record.json").read_text())
    files = {
        file["key"]: {"size": file["size"], "md5": file["checksum"].removeprefix("md5:")}
        for file in record["files"]
    }
    known = {"id": record["id"], "files": files}
    known |= yaml.safe_load((REPO / "tests" / "support" / "record_99990001.yaml").read_text())
    (copy / "config" / "published" / "zenodo_99990001.yaml").write_text(yaml.safe_dump(known))
    return copy


def test_the_miniature_passes_its_checks(miniature, real_data, tmp_path):
    run = overlay(tmp_path, "mini", {"run": "mini", "zenodo": {"record": 99990001}})
    with ZenodoServer(real_data / "gz_decals_record") as server:
        address = {"ZENODO_URL": server.url, "NO_PROXY": "127.0.0.1"}
        snakemake(miniature, "check_record", "--configfile", run, **address)
        assert set(server.served) == {
            "gz_decals_volunteers_1_and_2.csv",
            "gz_decals_volunteers_5.csv",
            "gz_decals_auto_posteriors.csv",
        }
    found = pd.read_csv(miniature / "results/mini/paper/check_record.csv")
    assert (found["verdict"] == "right").all()
    assert len(found) == 12
    log = (miniature / "logs/mini/check_record.log").read_text()
    assert "galaxies of GZD-5: expected 1,457, found 1,457: right" in log
    assert "all 12 counts are right" in log


def test_a_broken_record_fails_with_one_message_and_keeps_its_table(miniature, real_data, tmp_path):
    folder = tmp_path / "record"
    folder.mkdir()
    for name in ("volunteers_1_and_2", "volunteers_5", "auto_posteriors"):
        rows = (
            (real_data / "gz_decals_record" / f"gz_decals_{name}.csv").read_text().splitlines(keepends=True)
        )
        (folder / f"gz_decals_{name}.csv").write_text("".join(rows[:-1]))
    run = overlay(
        tmp_path,
        "broken",
        {
            "run": "broken",
            "zenodo": {"record": 99990001, "local": str(folder)},
            "catalogs": [{"name": "a", "tree": "gz_decals_5", "table": "gz_decals_volunteers_5.csv"}],
            "predict": {"targets": []},
            "evaluate": {"target": None},
        },
    )
    status, shown = snakemake(miniature, "check_record", "--configfile", run, check=False)
    assert status == 1
    assert "Traceback" not in shown
    last = (miniature / "logs/broken/check_record.log").read_text().strip().splitlines()[-1]
    assert "counts are wrong, the first is 'galaxies of GZD-1 and 2' (expected 6, found 5)" in last
    found = pd.read_csv(miniature / "results/broken/paper/check_record.csv")
    assert 3 <= (found["verdict"] == "wrong").sum() < len(found)
    (folder / "gz_decals_auto_posteriors.csv").unlink()
    status, shown = snakemake(miniature, "check_record", "--configfile", run, check=False)
    assert status == 1
    assert "MissingInputException" not in shown
    last = (miniature / "logs/broken/check_record.log").read_text().strip().splitlines()[-1]
    assert "names 'gz_decals_auto_posteriors.csv', which the folder of zenodo.local does not have" in last


def test_a_record_without_checks_is_one_message(miniature, tmp_path):
    status, shown = snakemake(
        miniature, "check_record", "--configfile", "config/demo.yaml", "--directory", tmp_path, check=False
    )
    assert status == 1
    assert "Traceback" not in shown
    log = (tmp_path / "logs/demo/check_record.log").read_text()
    assert "there is no such file with the expected counts of the record" in log
