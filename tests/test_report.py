"""The report: tables of the configuration and of the models' origin, tables as pages, captions."""

import json
import re
from types import SimpleNamespace

import docutils.core
import jinja2
import pandas as pd
import pytest
import yaml
from zoolib.report import show_tables, write_configuration, write_provenance


def test_the_configuration_has_every_key(tmp_path):
    settings = {
        "run": "demo",
        "train": {"ensembles": [{"members": 3, "splits": ["train", "test"]}], "start": None},
    }
    write_configuration(settings, tmp_path / "c.csv", tmp_path / "c.yaml")
    assert yaml.safe_load((tmp_path / "c.yaml").read_text()) == settings
    table = pd.read_csv(tmp_path / "c.csv", dtype=str).set_index("key")["value"]
    assert table.to_dict() == {
        "run": "demo",
        "train.ensembles[0].members": "3",
        "train.ensembles[0].splits": "train, test",
        "train.start": "none",
    }


def test_provenance_has_common_values_once(tmp_path):
    for number in (1, 2):
        about = {
            "seed": number,
            "data": {"train": "abc"},
            "versions": {"keras": "3"},
            "columns": ["not listed"],
        }
        (tmp_path / f"m{number}").mkdir()
        (tmp_path / f"m{number}" / "model.json").write_text(json.dumps(about))
    write_provenance([tmp_path / "m1" / "model.json", tmp_path / "m2" / "model.json"], tmp_path / "p.csv")
    rows = pd.read_csv(tmp_path / "p.csv", dtype=str).to_numpy().tolist()
    assert rows == [
        ["all models", "data.train", "abc"],
        ["all models", "versions.keras", "3"],
        [str(tmp_path / "m1"), "seed", "1"],
        [str(tmp_path / "m2"), "seed", "2"],
    ]


def test_tables_become_pages(tmp_path):
    (tmp_path / "scores.csv").write_text("question,count,mean_accuracy\nbar,3,0.66666667\nrings & arms,0,\n")
    (tmp_path / "rejected.csv").write_text("id_str,reason\n")
    pages = [tmp_path / "scores.html", tmp_path / "rejected.html"]
    show_tables([tmp_path / "scores.csv", tmp_path / "rejected.csv"], pages)
    scores, rejected = (page.read_text() for page in pages)
    assert "<td>0.6667</td>" in scores
    assert "<th>mean accuracy</th>" in scores
    assert "rings &amp; arms" in scores
    assert "None." in rejected


# Runs that train, that only finetune, and that only predict.
TRAINS = {"targets": [{"name": "test", "ensemble": "metrics"}]}, {"tasks": []}
FINETUNES = {"targets": []}, {"tasks": [{"name": "ring", "pretrained": "mine/model"}]}
PREDICTS = {"targets": [{"name": "sky", "ensemble": None}]}, {"tasks": []}


def told(repo, path, simulate, predict, finetune, **wildcards):
    """The text of a caption as HTML; what Snakemake would mark as wrong is an error."""
    about = SimpleNamespace(
        config={
            "run": "demo",
            "zenodo": {"record": 4573248, "simulate": simulate, "sample": None},
            "evaluate": {
                "min_votes": 34,
                "confident": 0.8,
                "relevant": "product",
                "target": "test" if predict is TRAINS[0] else None,
            },
            "search": [{"name": "strange"}] if simulate else [],
            "predict": predict,
            "finetune": finetune,
        },
        wildcards=SimpleNamespace(subset="all", run="demo", **wildcards),
    )
    template = jinja2.Template(path.read_text(), undefined=jinja2.StrictUndefined)
    settings = {"halt_level": 2, "report_level": 2}
    text = template.render(snakemake=about)
    return docutils.core.publish_parts(text, writer="html5", settings_overrides=settings)["body"]


@pytest.mark.parametrize("simulate", [None, {"galaxies": 100}])
def test_every_caption_is_there_and_is_valid(repo, simulate):
    folder = repo / "workflow" / "report"
    wanted, of_tables = {"workflow.rst"}, set()
    for rules in (repo / "rules").glob("*.smk"):
        wanted |= set(re.findall(r"report/(\w+\.rst)", rules.read_text()))
        tables = re.findall(r'\("(\w+)", "(?:Run|Data|Scores|Finetuning)"', rules.read_text())
        of_tables |= {f"{caption}.rst" for caption in tables}
    assert {"scores.rst", "gallery.rst", "task_scores.rst"} <= wanted | of_tables
    assert wanted | of_tables <= {path.name for path in folder.glob("*.rst")}
    for path in folder.glob("*.rst"):
        # The rule that shows tables has no task among its wildcards.
        wildcards = {} if path.name in of_tables else {"task": "rings"}
        html = told(repo, path, simulate, *TRAINS, **wildcards)
        assert len(re.findall(r"[.:](?:\s|<)", html)) >= 2, f"{path} says too little"


def test_the_first_page_says_only_what_the_run_has(repo):
    path = repo / "workflow/report/workflow.rst"
    trains, finetunes, predicts = (told(repo, path, None, *run) for run in (TRAINS, FINETUNES, PREDICTS))
    assert "Zenodo record 4573248" in trains and "<em>Scores</em>" in trains
    for text in (finetunes, predicts):
        assert not re.search("Zenodo|<em>(Data|Training|Scores|Calibration|Paper|Galleries)</em>", text)
    assert "finetuned for ring" in finetunes and "<em>Finetuning</em>" in finetunes
    assert "posteriors of finished models for sky" in predicts and "<em>Predictions</em>" in predicts
