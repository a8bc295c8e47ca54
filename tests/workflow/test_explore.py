"""The stage explore in the pipeline: pages of a target and of a task, opened from the disk."""

import pandas as pd
from browser import chromium
from explored import Data
from pipeline import TEST, edit, planned, snakemake


def test_a_target_and_a_task_get_a_page(edited, tmp_path):
    assert planned(edited, *TEST, "--", "explore") == {"write_explorer": 2, "rank_galaxies": 1}
    _, shown = snakemake(edited, *TEST, "--", "explore")
    assert "Traceback" not in shown and planned(edited, *TEST, "--", "explore") == {}
    results = edited / "results/test"
    pages = {name: results / f"explore/{name}/index.html" for name in ("test", "ring")}
    votes, labels = (Data(page) for page in pages.values())
    catalog = pd.read_parquet(results / "catalog/test.parquet").set_index("id_str")
    said = catalog["bar_strong"].loc[votes.names].astype("float32")
    assert votes.column("bar_strong_votes").tolist() == said.tolist()
    galaxies = pd.read_parquet(results / "finetune/ring/galaxies.parquet").set_index("id_str")
    assert labels.column("ring_label").tolist() == galaxies["ring"].loc[labels.names].tolist()
    assert votes.about["missing"] == labels.about["missing"] == []
    with chromium(tmp_path / "browser") as browser:
        for name, data in (("test", votes), ("ring", labels)):
            browser.open(pages[name].as_uri())
            browser.wait(f"zoo.page && document.title === 'test, {name}'")
            browser.wait(
                f"zoo.page.shown.value.length === {len(data.names)} && zoo.page.state.filters.length > 1"
            )
            browser.do("zoo.page.open(0)")
            browser.wait(f"document.querySelector('#galaxy-name').textContent === '{data.names[0]}'")
            answers = sum(len(panel["columns"]) for panel in data.about["panels"])
            assert browser.do("document.querySelectorAll('.answer .density').length") == answers
            assert "zip: " in browser.do("document.querySelector('dd.file').textContent")
        assert not browser.errors
        assert {url.partition(":")[0] for url in browser.requests} <= {"file", "data"}
    # Whoever edits the page gets it by the same command.
    edit(edited / "workflow/explore/style.css", "#0a5ca8", "#0a5ca9")
    assert planned(edited, *TEST, "--", "explore") == {"write_explorer": 2}
