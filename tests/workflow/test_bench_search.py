"""The benchmark of searches: its measurements, on few galaxies."""

import bench_search
import numpy as np


def test_one_size_measures_everything():
    found = bench_search.one_size(300)
    assert len(found) == 7 and found[0] > 0 and found[-1] > 0


def test_the_price_has_each_way_and_turn(completed, monkeypatch):
    monkeypatch.setattr(bench_search, "ROUNDS", 2)
    found, galaxies = bench_search.price(completed / "results" / "test")
    assert len(found) == 4 and all(len(times) == 2 for times in found.values()) and galaxies > 0


def test_an_index_is_scored_by_the_exact_neighbours(monkeypatch):
    rng = np.random.default_rng(1)
    values = bench_search.directions(rng.normal(size=(500, 8)).astype(np.float32))
    monkeypatch.setattr(bench_search, "like_the_demo", lambda count: values)
    assert bench_search.one_index("exact", 500)[2] == 1
    # Half of its answers are right; the galaxy itself does not count.
    half = lambda found: lambda row: [row, *bench_search.exact(found)(row)[::2]]  # noqa: E731
    monkeypatch.setattr(bench_search, "faiss", half)
    assert bench_search.one_index("faiss", 500)[2] == 0.5
