"""The benchmark of pages writes and uses one of few galaxies; the picture of the page is drawn."""

import bench_explore
import draw_explore
from PIL import Image


def test_a_page_is_written_used_and_drawn(tmp_path, monkeypatch):
    monkeypatch.setattr(bench_explore, "IMAGES", 3)
    monkeypatch.setattr(bench_explore, "MOVES", 4)
    seconds, size, page = bench_explore.write_page(tmp_path, 120)
    assert seconds > 0 and size > 100_000
    used = bench_explore.use_page(page, tmp_path / "browser")
    assert len(used["filtering"]) == len(used["frames"]) == 4
    assert max(used["filtering"]) <= max(used["frames"])
    assert 1e6 < used["heap"] < used["memory"] < 1e9 and 0 < used["tiles"] <= 120
    draw_explore.draw(page, tmp_path / "picture.png")
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.size == (1586, 533) and len(picture.getcolors()) > 50
