"""The benchmark beside other tools: its rounds, ratios and table, without the works themselves."""

import bench
import pytest
import works


def test_the_ways_of_a_work_take_turns(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(bench, "measure", lambda command: asked.append(command) or float(len(asked)))
    found = bench.rounds(["shards"], 2)
    assert asked[:3] == asked[3:] == ["works shards", "works pillow_loop", "works bare_decoding"]
    assert found["shards"]["ours"] == [1, 4]
    assert "shards" in capsys.readouterr().out


def test_every_work_can_be_called():
    for work in bench.WORKS.values():
        for command in (work.ours, *work.others.values()):
            kind, _, rest = command.partition(" ")
            assert kind == "seconds" or callable(getattr(works, rest.split()[0]))
        assert set(work.bars) <= {*work.others, "seconds"}


def test_without_timm_its_rows_are_left_out(monkeypatch):
    monkeypatch.setattr(bench.importlib.util, "find_spec", lambda name: None)
    assert set(bench.ways_of(bench.WORKS["step"])) == {"ours", "on a tensor in memory"}


def test_ratios_are_those_of_the_same_round(tmp_path):
    found = {
        "shards": {"ours": [200.0, 110.0], "a Pillow loop on all cores": [100.0, 50.0]},
        "small": {"ours": [9.0, 12.0, 10.0]},
    }
    (mean, spread) = bench.ratios(found["shards"])["a Pillow loop on all cores"]
    assert mean == pytest.approx(2.1) and spread == pytest.approx(0.1414, rel=1e-3)
    table = bench.lines(found)
    assert "| a Pillow loop on all cores | 75.0 | 2.10 ± 0.14 | 2 |" in table
    assert table[-1] == "| predict 50 galaxies in Python, in a new process | 10.0 | 9.0 to 12.0 | 10 |"
    bench.draw(found, tmp_path / "speed.png")
    assert (tmp_path / "speed.png").stat().st_size > 5000


def test_a_command_that_fails_is_said(monkeypatch):
    with pytest.raises(SystemExit, match="exit 3 has failed"):
        bench.measure("seconds exit 3")
    assert bench.measure("seconds true") < 5
