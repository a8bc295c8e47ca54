"""How cost grows: the exponents and the table, and the galaxies that it is measured on."""

import pandas as pd
import pytest
import study_growth


def test_the_exponent_is_that_of_the_largest_sizes():
    assert study_growth.exponent([1, 10, 100], [5, 6, 60]) == pytest.approx(1)
    assert study_growth.exponent([10, 20], [1, 4]) == pytest.approx(2)


def test_a_row_has_both_ends_and_the_exponent(capsys):
    growth = study_growth.Growth()
    for galaxies, seconds, peak in ((1_000, 1.0, 2e8), (10_000, 2.0, 2.1e8), (100_000, 20.0, 3e8)):
        growth.add("galaxies", galaxies, "build_catalog", seconds, peak)
    assert growth.lines()[2:] == [
        "| build_catalog | galaxies | 1,000, 100,000 | 1.0, 20.0 | 200, 300 | 1.00 |"
    ]
    growth.add("shards", 1, "write_shard", 1.0, 2e8)
    growth.add("shards", 4, "write_shard", 1.0, 2e8)
    assert growth.largest() == pytest.approx(1)
    assert "100,000" in capsys.readouterr().out


def test_no_two_galaxies_share_their_pixels(tmp_path):
    study_growth.make_galaxies(tmp_path / "few", 200)
    study_growth.catalog(tmp_path / "few")
    tables = {split: tmp_path / "few" / f"{split}.parquet" for split in ("train", "val", "test")}
    sizes = {split: len(pd.read_parquet(path)) for split, path in tables.items()}
    # Galaxies with equal pixels would be in one split, so few groups would fill it unevenly.
    assert sum(sizes.values()) == 200 and 160 < sizes["train"] < 195
