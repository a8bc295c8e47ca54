"""The benchmark of GPUs, on a processor: what it measures, and what it writes."""

import gpu
import pytest
import yaml


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr(gpu, "WARM", 1)
    monkeypatch.setattr(gpu, "SECONDS", 0)
    monkeypatch.setattr(gpu, "TURNS", 1)


def test_each_work_is_measured(quick):
    found = gpu.ours("tiny", 32, 4, "float32")
    assert set(found) == {"step", "forward", "draws", "likelihood"} and min(found.values()) > 0


def test_a_row_has_rates_and_shares_and_a_failed_one_is_empty():
    found = {"step": 0.5, "forward": 0.1, "draws": 0.01, "likelihood": 0.05}
    rows = [{"who": "ours", "backbone": "tiny", "batch": 64, "way": "mixed", "found": found}]
    rows.append({**rows[0], "who": "timm", "found": {"step": 0.25, "forward": 0.2}})
    rows.append({**rows[0], "batch": 1024, "found": None})
    text = gpu.lines(rows, "a card", 224)
    assert text[0].endswith(".") and "a card" in text[0]
    assert text[-3:] == [
        "| tiny | ours | mixed | 64 | 128 | 640 | 10.0 % | 10.0 % |",
        "| tiny | timm | mixed | 64 | 256 | 320 |  |  |",
        "| tiny | ours | mixed | 1,024 |  |  |  |  |",
    ]


def test_what_fails_is_said_and_the_others_go_on(capsys):
    assert gpu.in_own_process("nobody", "tiny", 32, 4, "float32") is None
    assert "nobody tiny 32 4 float32: KeyError: 'nobody'" in capsys.readouterr().out


def test_the_best_rates_of_a_card_count_in_the_estimate(monkeypatch, tmp_path):
    monkeypatch.setattr(gpu, "REPO", tmp_path)
    row = {"who": "ours", "backbone": "efficientnet_b0", "batch": 64, "way": "float32"}
    rows = [{**row, "found": {"step": 0.1, "forward": 0.02}}, {**row, "batch": 256, "found": None}]
    rows.append({**row, "way": "mixed, compiled", "found": {"step": 0.04, "forward": 0.01}})
    gpu.keep_rates(rows, "", 224)
    assert not (tmp_path / "results").exists()
    gpu.keep_rates(rows, "a card", 224)
    kept = yaml.safe_load((tmp_path / "results" / "bench" / "gpu.yaml").read_text())
    assert kept == {"machine": "a card", "train": 640, "train_mixed": 1600, "forward": 3200}
