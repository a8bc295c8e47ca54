"""What a run will take: its galaxies, downloads and hours, before anything is made."""

import estimate
import pytest
import yaml

REPO = estimate.REPO


@pytest.fixture
def rates(monkeypatch, tmp_path):
    """The rates of the repository, whatever this machine has measured."""
    (tmp_path / "benchmarks").mkdir()
    for name in ("config", "workflow", "Snakefile", "rules", "profiles"):
        (tmp_path / name).symlink_to(REPO / name)
    (tmp_path / "benchmarks" / "rates.yaml").write_text((REPO / "benchmarks" / "rates.yaml").read_text())
    monkeypatch.setattr(estimate, "REPO", tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_papers_run_is_estimated_before_the_download(rates):
    shown = estimate.lines("config/config.yaml", 4)
    assert len(shown) <= 12
    assert shown[0].startswith("gz_decals: 253,286 galaxies") and "364,446 to predict, on 4 GPUs" in shown[0]
    found = {line.split("  ")[0]: line.split() for line in shown[1:]}
    # Four zips and three tables.
    assert "downloads 105.4" in " ".join(found["disk"])
    # Five models learn from 0.9 of the galaxies, three from 0.7, so one of 4 cards trains two of the five.
    longest = 253_286 * 0.9 * 200 / 655 / 3600
    assert float(found["train_member"][1]) == pytest.approx(2 * longest, abs=0.06)
    more = {line.split("  ")[0]: line.split() for line in estimate.lines("config/config.yaml", 100)[1:]}
    assert float(more["train_member"][1]) == pytest.approx(longest, abs=0.06)


def test_what_the_benchmarks_have_measured_here_counts(rates):
    (rates / "results" / "bench").mkdir(parents=True)
    before = estimate.Machine(None)
    faster = before.rates["processor"] | {
        "machine": "this one",
        "train": 100 * before.rates["processor"]["train"],
    }
    (rates / "results" / "bench" / "processor.yaml").write_text(yaml.safe_dump(faster))
    after = estimate.Machine(None)
    assert "this one" in after.name
    job = "train", 1000, {"size": 64, "final_size": 48}, "tiny"
    assert after.seconds(*job) < before.seconds(*job)


def test_what_cannot_be_counted_is_a_sentence(rates, capsys):
    survey = {"run": "sky", "evaluate": {"target": None, "published": None}}
    target = {"name": "sky", "models": ["m"], "images": str(rates / "nowhere")}
    survey["predict"] = {"samples": 1, "views": 0, "targets": [target]}
    (rates / "sky.yaml").write_text(yaml.safe_dump(survey))
    cases = {("nothing.yaml",): "no such file", ("config/demo.yaml", "many"): "expected a number"}
    for words, said in {**cases, ("sky.yaml",): "nowhere"}.items():
        with pytest.raises(SystemExit, match=said) as stop:
            estimate.main(*words)
        assert "Traceback" not in str(stop.value)


def test_times_are_read_at_a_glance():
    assert [estimate.duration(seconds) for seconds in (1, 7100, 7200, 200_000)] == [
        *("1 min", "119 min", "2.0 h", "2.3 d")
    ]
