"""The report of a run, in a real browser."""

from browser import chromium
from pipeline import TEST, snakemake

CATEGORIES = ("Data", "Training", "Scores", "Calibration", "Paper", "Galleries", "Finetuning", "Run")


def test_the_report_opens_in_a_browser(completed, tmp_path):
    page = tmp_path / "report.html"
    with chromium(tmp_path / "profile") as opened:
        snakemake(completed, *TEST, "--report", page)
        opened.open(page.as_uri())
        shown = opened.wait("document.body.innerText.includes('Galleries') && document.body.innerHTML")
        assert opened.do("document.querySelectorAll('figure img').length") == 3
        assert opened.errors == []
    for category in CATEGORIES:
        assert f">{category}<" in shown
    assert "Walmsley" in shown
    assert ">The numbers that matter<" in shown
    # What docutils writes where a caption is no valid text.
    assert "System Message" not in page.read_text()
