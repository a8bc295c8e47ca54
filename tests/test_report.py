"""The report: tables of the configuration and of the models' origin, tables as pages, captions."""

import base64
import io
import json
import re
from pathlib import Path
from types import SimpleNamespace

import docutils.core
import jinja2
import pandas as pd
import pytest
import yaml
from PIL import Image
from zoolib.figures.first_page import write_first_page
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
    scores = "question,count,mean_accuracy\nbar,32,0.66666667\nrings & arms,0,\nedge,250000,0.66666667\n"
    (tmp_path / "scores.csv").write_text(scores)
    (tmp_path / "rejected.csv").write_text("id_str,reason\n")
    pages = [tmp_path / "scores.html", tmp_path / "rejected.html"]
    show_tables([tmp_path / "scores.csv", tmp_path / "rejected.csv"], pages)
    scores, rejected = (page.read_text() for page in pages)
    # One digit more than the standard error: 0.09 for 32 galaxies, 0.001 for 250,000.
    assert re.findall(r"<td>(0\..*?)</td>", scores) == ["0.67", "0.667"]
    assert "<th>mean accuracy</th>" in scores
    assert "rings &amp; arms" in scores
    assert "None." in rejected


@pytest.fixture
def found(tmp_path):
    """What a run of votes and of a task has written, in small."""
    tables = {
        "summary": "step,galaxies\nrows of t.csv,900\nsplit train,700\nsplit val,100\nsplit test,90\n",
        "scores": "question,subset,count,accuracy,accuracy_low_95,accuracy_high_95\n"
        "bar,all,80,0.75,0.645,0.832\nrare,all,0,,,\nbar,confident,40,0.9,0.77,0.96\nrare,confident,0,,,\n",
        "losses": "question,galaxies,model,constant\nbar,80,1.5,1.4\ntotal,90,1.5,1.4\n",
        "confusion": "question,subset,true,predicted,count\nbar,all,yes,yes,20\nbar,all,yes,no,10\n"
        "bar,all,no,yes,10\nbar,all,no,no,40\nbar,confident,no,no,40\n",
        "coverage": "question,answer,measure,selected,stated,expected,actual,galaxies\n"
        "bar,all,votes,predicted,0.9,0.93,0.85,90\nbar,all,truth,predicted,0.9,0.9,0.1,90\n",
        "task_scores": "label,split,score,galaxies,value,low_95,high_95,constant,probe\n"
        "ring,train,accuracy,90,0.99,0.9,1,0.5,0.9\nring,test,accuracy,32,0.8125,0.69,0.94,0.53,0.78\n",
        "task_summaries": "step,galaxies\nwith a label,170\nsplit train,100\nsplit test,32\n",
        "advice": "label,advice\nring,ring: try <more> labels\n",
        "unfamiliar": "galaxies,known,unlike,share\n90,90,9,0.1\n",
        "not_used": "id_str,reason\na,it is empty\nb,it is empty\n",
    }
    for name, text in tables.items():
        (tmp_path / f"{name}.csv").write_text(text)
    Image.new("RGB", (2400, 600), (200, 30, 30)).save(tmp_path / "gallery.png")
    about = {"training": {"backbone": "tiny"}, "image": {"final_size": 36}}
    (tmp_path / "model.json").write_text(json.dumps(about))
    files = {name: [tmp_path / f"{name}.csv"] for name in tables}
    pictures = {"models": [tmp_path / "model.json"], "figures": [tmp_path / "gallery.png"]}
    return SimpleNamespace(**files, **pictures, fits=[], table_1=[], target_scores=[])


def cells_of(page):
    """The rows of the table of a first page, as lists of text."""
    return [re.findall("<td>(.*?)</td>", row) for row in re.findall("<tr>(.*?)</tr>", page)][1:]


def test_the_first_page_has_the_numbers_beside_the_constant_ones(tmp_path, found):
    write_first_page(found, ["rings"], ["test"], [], tmp_path / "first.html")
    page = (tmp_path / "first.html").read_text()
    assert cells_of(page) == [
        ["Bar: accuracy", "0.75", "0.65 to 0.83", "one answer for all: 0.62", "80"],
        [
            "Mean accuracy where the volunteers are confident (questions: 1)",
            "0.90",
            "",
            "one answer for all: 1.00",
            "40",
        ],
        ["Test loss (nats a galaxy; less is better)", "1.500", "", "one answer for all: 1.400", "90"],
        ["Votes inside their 90 % intervals, all questions", "85.0%", "", "if right: 93.0%", "90"],
        [
            "Ring: accuracy (rings)",
            "0.81",
            "0.69 to 0.94",
            "one answer for all: 0.53; linear probe: 0.78",
            "32",
        ],
        ["test: galaxies unlike the training set", "10.0%", "", "usual: 1 %", "90"],
    ]
    assert "1 model (tiny, images of 36 pixels) learned votes; galaxies: 700 train, 100 val, 90 test." in page
    assert "Finetuned for rings; labelled galaxies: 100 train, 32 test." in page
    assert f"2 in <code>{tmp_path}/not_used.csv</code>: it is empty</li>" in page
    assert "rings, ring: try &lt;more&gt; labels" in page and "not better than one answer for all" in page
    assert "Do not trust test" in page and f"<code>{tmp_path}/label_next.csv</code>" in page
    picture = base64.b64decode(re.search("base64,(.*?)'", page)[1])
    with Image.open(io.BytesIO(picture)) as opened:
        assert opened.size == (1200, 300)


def test_the_first_page_of_a_survey_alone(tmp_path, found):
    lists = {name: [] for name in vars(found)}
    survey = SimpleNamespace(**{**lists, "unfamiliar": found.unfamiliar, "not_used": found.not_used})
    write_first_page(survey, [], ["sky"], [], tmp_path / "first.html")
    page = (tmp_path / "first.html").read_text()
    assert [row[0] for row in cells_of(page)] == ["sky: galaxies unlike the training set"]
    assert "Posteriors for sky: 90 galaxies." in page and "learned" not in page


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
    # As Snakemake reads it: a line end after a block is left out, which joins paragraphs.
    undefined = jinja2.StrictUndefined
    template = jinja2.Template(path.read_text(), undefined=undefined, trim_blocks=True, lstrip_blocks=True)
    # Captions that take a file take it from the folder of the call.
    first = Path("results/demo/report/first_page.html")
    first.parent.mkdir(parents=True, exist_ok=True)
    first.write_text("<p>the numbers</p>")
    settings = {"halt_level": 2, "report_level": 2}
    text = template.render(snakemake=about)
    return docutils.core.publish_parts(text, writer="html5", settings_overrides=settings)["body"]


@pytest.mark.parametrize("simulate", [None, {"galaxies": 100}])
def test_every_caption_is_there_and_is_valid(repo, simulate, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder = repo / "workflow" / "report"
    wanted, of_tables = {"workflow.rst"}, set()
    for rules in (repo / "rules").glob("*.smk"):
        wanted |= set(re.findall(r"report/(\w+\.rst)", rules.read_text()))
        tables = re.findall(r'\("(\w+)", "(?:Run|Data|Scores|Finetuning)"', rules.read_text())
        of_tables |= {f"{caption}.rst" for caption in tables}
    assert {"scores.rst", "gallery.rst", "task_scores.rst"} <= wanted | of_tables
    assert wanted | of_tables <= {path.name for path in folder.glob("*.rst")}
    for path in folder.glob("*.rst"):
        # The rule that shows tables has no task and no target among its wildcards.
        wildcards = {} if path.name in of_tables else {"task": "rings", "target": "sky"}
        html = told(repo, path, simulate, *TRAINS, **wildcards)
        assert len(re.findall(r"[.:](?:\s|<)", html)) >= 2, f"{path} says too little"


def test_the_first_page_says_only_what_the_run_has(repo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    path = repo / "workflow/report/workflow.rst"
    trains, finetunes, predicts = (told(repo, path, None, *run) for run in (TRAINS, FINETUNES, PREDICTS))
    assert "<p>the numbers</p>" in trains and trains.count("<p>") == 4
    assert "Zenodo record 4573248" in trains and "<em>Scores</em>" in trains
    for text in (finetunes, predicts):
        assert not re.search("Zenodo|<em>(Data|Training|Scores|Calibration|Paper|Galleries)</em>", text)
    assert "finetuned for ring" in finetunes and "<em>Finetuning</em>" in finetunes
    assert "posteriors of finished models for sky" in predicts and "<em>Predictions</em>" in predicts
