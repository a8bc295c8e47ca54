"""The benchmark beside other tools: its rounds, ratios and table, without the works themselves."""

import bench
import pytest
import works
import yaml


def test_the_ways_of_a_work_take_turns(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(bench, "measure", lambda command, turn: asked.append(command) or float(len(asked)))
    found = bench.rounds(["shards"], 2)
    assert asked[:3] == asked[3:] == ["works shards", "works pillow_loop", "works bare_decoding"]
    assert found["shards"]["ours"] == [1, 4]
    assert "shards" in capsys.readouterr().out


def test_every_work_can_be_called():
    for work in bench.WORKS.values():
        for command in (work.ours, *work.others.values()):
            kind, _, rest = command.partition(" ")
            assert kind in ("seconds", "zoobot") or callable(getattr(works, rest.split()[0]))
        assert set(work.bars) <= {*work.others, "seconds"}


def test_without_timm_and_zoobot_their_rows_are_left_out(monkeypatch, tmp_path):
    monkeypatch.setattr(bench.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(bench, "PEER", tmp_path)
    assert set(bench.ways_of(bench.WORKS["step"])) == {"ours", "on a tensor in memory"}
    assert set(bench.ways_of(bench.WORKS["draws"])) == {"ours", "1 draw"}


def test_zoobot_called_often_pays_its_start_once(monkeypatch, tmp_path):
    monkeypatch.setattr(bench, "IMAGES", tmp_path)
    for name in "ab":
        (tmp_path / name).touch()
    monkeypatch.setattr(bench, "_run", lambda command, shell: "a line\n[10.0, 4.0]\n")
    assert bench.measure("zoobot 1", "here") == 2 / 10
    assert bench.measure("zoobot 30", "here") == pytest.approx(2 / (10 + 29 * 4))


def test_the_rates_of_this_machine_are_kept_for_the_estimate(monkeypatch, tmp_path):
    (tmp_path / "results" / "bench").mkdir(parents=True)
    (tmp_path / "benchmarks").symlink_to(bench.REPO / "benchmarks")
    monkeypatch.setattr(bench, "REPO", tmp_path)
    bench.keep_rates({"step": {"ours": [2.0, 4.0, 3.0]}})
    bench.keep_rates({"shards": {"ours": [100.0]}})
    kept = yaml.safe_load((tmp_path / "results" / "bench" / "processor.yaml").read_text())
    assert (kept["train"], kept["shard"]) == (3 / bench.CORES, 100 / bench.CORES)
    assert kept["machine"].startswith(bench.processor()) and kept["start"] > 0


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
