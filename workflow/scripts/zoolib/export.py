"""Stage export: the card of an exported model; `learning.exchange` writes the model in other formats.

The card has the form of Hugging Face (https://huggingface.co/docs/hub/model-cards): YAML between two lines of
dashes, then Markdown. It is made of what files say; what they do not say is called unknown.
"""

import json
from pathlib import Path

import pandas as pd
import yaml

from zoolib.config.labels import Label
from zoolib.config.sources import HUB, IMAGENET
from zoolib.config.trees import DecisionTree
from zoolib.data.images import GREY
from zoolib.job.logs import whole
from zoolib.scores.markdown import measured, scores_in_markdown, table
from zoolib.zenodo.records import PUBLISHED

CITATION = Path(__file__).parents[3] / "CITATION.cff"
UNKNOWN = "unknown"
# Settings of a training that the card says elsewhere, or that can be paths of the machine that trained.
LEFT_OUT = ("augmentation", "origin", "pretrained", "start_from", "galaxies", "backbone", "name")


def write_card(about, checks, tables, facts, licence, output):
    """Write the card of an exported model.

    Args:
        about: its `model.json`.
        checks: its `checks.json`, see `learning.exchange.export_model`.
        tables: CSV files of the run: the summary of its galaxies, then scores and coverage as far as the run
            has them.
        facts: what the configuration says, see `config.exports.Exports.facts`.
        licence: of the weights, such as CC-BY-4.0; None if the user has not chosen one.
        output: Markdown to write.
    """
    about, checks = (json.loads(Path(path).read_text()) for path in (about, checks))
    tables = {Path(path).stem: pd.read_csv(path) for path in tables}
    started = about["training"].get("origin")
    sections = [
        _introduction(about, facts),
        _use(about, checks),
        _outputs(about, checks),
        _galaxies(about, facts, tables["summary"]),
        _training(about, checks, facts, started),
        scores_in_markdown(tables, facts["min_votes"]),
        _limits(about, facts),
        _licence(licence, facts, started),
        _citation(facts),
    ]
    front = {"license": (licence or UNKNOWN).lower(), "library_name": "keras"}
    front["tags"] = ["astronomy", "galaxy-zoo", "galaxy-morphology", "keras", "onnx"]
    if metrics := [name for name in ("accuracy", "f1") if name in measured(tables)]:
        front["metrics"] = metrics
    text = f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n\n" + "\n\n".join(sections) + "\n"
    with whole(output) as partial:
        partial.write_text(text)


def _subject(about):
    """What the model answers, in words."""
    if about["tree"]:
        return f"the questions of {about['tree'].get('title') or about['tree']['name']}"
    return " and ".join(label["name"] for label in about["labels"])


def _simulated(facts):
    return bool(facts["zenodo"] and facts["zenodo"]["simulate"])


def _introduction(about, facts):
    lines = [
        f"# {facts['run']}, {facts['model']}: {_subject(about)}",
        f"A neural network ({about['training'].get('backbone') or UNKNOWN}) that looks at the image of a"
        f" galaxy and answers {_subject(about)}. It was trained by zoo-pipeline, a Snakemake workflow.",
    ]
    if _simulated(facts):
        lines.append(
            "**The galaxies and volunteers of its training are simulated: it says nothing about the sky.**"
        )
    if about["training"].get("ensemble"):
        lines.append(
            f"It is member {about['training']['member']} of the ensemble {about['training']['ensemble']},"
            " whose members differ in their seeds. Predictions of the ensemble need all of its members."
        )
    return "\n\n".join(lines)


def _use(about, checks):
    """Which files there are, and how an image becomes the input."""
    image, share = about["image"], checks["share"]
    edge, channels = image["final_size"], 3 if image["color"] else 1
    how = {
        "size": image["size"],
        "edge": edge,
        "interpolation": image.get("interpolation", "lanczos").upper(),
    }
    how["step"], how["middle"] = f"{share * image['size'] / edge:.10g}", (image["size"] - 1) / 2
    weights = [[round(weight, 10)] for weight in GREY[image.get("grey", "mean")]]
    how["grey"] = "" if image["color"] else f"    pixels = pixels @ np.array({weights}, 'float32')  # grey\n"
    raw = image["encoding"] == "raw"
    how["rounded"] = "" if raw else "    pixels = np.clip(np.rint(pixels), 0, 255)\n"
    differences = [
        (name, f"{difference:.1e}", checks["tolerance"]) for name, difference in checks["differences"].items()
    ]
    return f"""## Files

{table(FILES, ("file", "what"))}

Compared with the trained network in float32, on {checks["images"]} made-up images, as a share of the size
of an output:

{table(differences, ("file", "greatest difference", "at most"))}

## Input

`image`: float32 of the shape (galaxies, {edge}, {edge}, {channels}), from 0 to 255, rows from the top,
{"red, green and blue" if image["color"] else "grey"}. Pixels are not to be scaled: the network does it. It
sees the middle {share:.4g} of the edge of an image: the largest central square, resampled to
{image["size"]} pixels, then cut. For a PNG or JPEG file, with NumPy, Pillow and ONNX Runtime:

```python
{SNIPPET.format(**how)}```

With TensorFlow: `tensorflow.saved_model.load("saved_model").serve(images)`. With zoo-pipeline, which also
reads FITS, this folder is a model folder: `make predict MODEL=this/folder IMAGES=…`, or
`zoolib.api.load("this/folder").predict("galaxy.png")`."""


FILES = (
    ("`model.keras`, `model.json`", "the model of Keras, and what is known of it, for zoo-pipeline"),
    ("`recalibration.json`", "corrects the posteriors of zoo-pipeline; not every folder has it"),
    ("`model.onnx`", "ONNX: `image` in, `outputs` out; it has the names of the outputs as metadata"),
    ("`saved_model/`", "SavedModel of TensorFlow, with the function `serve`"),
    ("`checks.json`", "how far the formats differ, and which packages wrote them"),
)
SNIPPET = """import numpy as np
import onnxruntime
from PIL import Image


def view(path):
    pixels = np.asarray(Image.open(path).convert("RGB"), "float32")
    edge = min(pixels.shape[:2])
    top, left = (pixels.shape[0] - edge) // 2, (pixels.shape[1] - edge) // 2
    pixels = pixels[top : top + edge, left : left + edge]
{grey}    planes = [Image.fromarray(np.ascontiguousarray(plane)) for plane in np.moveaxis(pixels, 2, 0)]
    planes = [plane.resize(({size}, {size}), Image.Resampling.{interpolation}) for plane in planes]
    pixels = np.stack(planes, axis=2)
{rounded}    # The view's pixels are between those of the image: bilinear interpolation.
    places = np.clip((np.arange({edge}) - ({edge} - 1) / 2) * {step} + {middle}, 0, {size} - 1)
    low = np.minimum(places.astype(int), {size} - 2)
    part = (places - low)[:, None]
    pixels = np.moveaxis(pixels, 2, 0)
    pixels = pixels[:, low] * (1 - part) + pixels[:, low + 1] * part
    pixels = pixels[:, :, low] * (1 - part[:, 0]) + pixels[:, :, low + 1] * part[:, 0]
    return np.moveaxis(pixels, 0, 2).astype("float32")


images = np.stack([view("galaxy.png")])
session = onnxruntime.InferenceSession("model.onnx")
outputs = session.run(["outputs"], {{"image": images}})[0]
"""


def _outputs(about, checks):
    """What the numbers are, in their order."""
    words, columns = _in_words(about), about["columns"]
    lines = [f"## Outputs\n\n`outputs`: float32 of the shape (galaxies, {_count(about)}). {words}"]
    if about["tree"]:
        tree = DecisionTree.from_dict(about["tree"])
        rows = [
            (question.start + number, question.name, answer, " or ".join(question.after) or "everyone")
            for question in tree.questions
            for number, answer in enumerate(question.answers)
        ]
        lines.append(table(rows, ("output", "question", "answer", "asked after")))
    else:
        labels = [Label.from_dict(label) for label in about["labels"]]
        named = [(label.name, label.kind) for label in labels for _ in label.outputs]
        rows = [(number, column, *named[number]) for number, column in enumerate(columns)]
        lines.append(table(rows, ("output", "name", "label", "kind")))
    lines.append(
        "ONNX and the SavedModel have dropout off: the same image gives the same numbers, and the samples of"
        " dropout, from which zoo-pipeline makes posteriors, are not in them. Neither is"
        " `recalibration.json`. For posteriors with right intervals use zoo-pipeline with this folder."
    )
    if checks["precision"] != "float32":
        lines.append(
            f"The model was trained with {checks['precision']}, in which `model.keras` still computes. ONNX"
            " and the SavedModel compute in float32: their outputs differ from those of `model.keras` by up"
            f" to {checks['difference_of_precision']:.1e} of an output's size."
        )
    return "\n\n".join(lines)


def _count(about):
    """The number of outputs."""
    if about["kind"] != "mixtures":
        return len(about["columns"])
    questions = len(DecisionTree.from_dict(about["tree"]).questions)
    return about["training"]["components"] * (len(about["columns"]) + questions)


def _in_words(about):
    if about["kind"] == "mixtures":
        several = about["training"]["components"]
        return (
            f"A mixture of {several} Dirichlet distributions for each question: first the concentrations of"
            f" all answers of the table below, {several} times, one component after the other; then the"
            " natural logarithms of the weights of all questions, one component after the other. The expected"
            " share of an answer is the mean over components, by their weights, of its concentration divided"
            " by the sum of the concentrations of its question."
        )
    if about["kind"] == "concentrations":
        return (
            "The concentrations of a Dirichlet distribution for each question. The expected share of"
            " volunteers who give an answer is its concentration divided by the sum of those of its question."
        )
    if about["tree"]:
        return "The probability of each answer of a question; those of one question sum to 1."
    return (
        "Of a label of two classes (binary) the probability of yes, of several classes (multiclass) the"
        " probability of each, of numbers (regression) the value, of votes the concentrations of a Dirichlet"
        " distribution."
    )


def _galaxies(about, facts, summary):
    """Which data the model has learned from."""
    lines, record, zenodo = ["## Data"], _record(facts), facts["zenodo"]
    if not zenodo:
        lines.append(f"Tables and images of the user; where they are from is {UNKNOWN}.")
    elif zenodo["simulate"]:
        simulated = ", ".join(f"{key} {value}" for key, value in zenodo["simulate"].items())
        lines.append(f"Simulated by zoo-pipeline in the layout of a Zenodo record: {simulated}.")
    elif record:
        lines.append(
            f"{record.get('title', 'Zenodo record')}, version {record.get('version', UNKNOWN)},"
            f" https://doi.org/{record['doi']}, licence {record.get('license', UNKNOWN)}."
        )
    else:
        lines.append(f"https://zenodo.org/records/{zenodo['record']}, licence {UNKNOWN}.")
    if zenodo and zenodo["sample"]:
        lines.append(f"Of this record only a sample of {zenodo['sample']} galaxies was used.")
    files = (record or {}).get("files", {})
    rows = [
        (Path(name).name, files.get(name, {}).get("md5", UNKNOWN), entry["name"], entry["query"] or "none")
        for entry in facts["catalogs"]
        for name in [entry["table"], entry.get("folders"), *entry["archives"]]
        if name
    ]
    lines.append(table(rows, ("file", "md5", "catalogue or task", "query")))
    shares = facts["split"]
    lines.append(
        f"Shares of the split: train {shares['train']}, validation {shares['val']}, test {shares['test']}."
        f" The model learned from {about['training'].get('galaxies', UNKNOWN)} galaxies, which `learned_from`"
        " in `model.json` names by hashes. Galaxies after each step:"
    )
    lines.append(table(summary.itertuples(index=False), summary.columns))
    return "\n\n".join(lines)


def _record(facts):
    """What is pinned of the record that the tables are from; None for any other data."""
    if not facts["zenodo"] or _simulated(facts):
        return None
    path = PUBLISHED / f"zenodo_{facts['zenodo']['record']}.yaml"
    return yaml.safe_load(path.read_text()) if path.is_file() else None


def _training(about, checks, facts, started):
    training, scores = about["training"], about.get("scores") or {}
    began = "random weights"
    if facts["simulated_start"]:
        began = "a model of this run, which had learned from simulated galaxies"
    elif started:
        began = f"the weights of {_named(started.get('pretrained'))}"
        began += f" (revision {started['revision']})" if started.get("revision") else ""
    elif training.get("pretrained") or training.get("start_from"):
        began = "a model of zoo-pipeline that had begun with random weights"
    rows = [
        ("backbone", training.get("backbone") or UNKNOWN),
        ("parameters", f"{checks['parameters']:,}"),
        ("began with", began),
        ("seed", about.get("seed", UNKNOWN)),
        ("augmentation", ", ".join(word for step in training["augmentation"]["steps"] for word in step)),
        *((f"image: {key}", value) for key, value in about["image"].items()),
        *((key, value) for key, value in training.items() if key not in LEFT_OUT and value is not None),
        *((f"result: {key}", value) for key, value in scores.items()),
        *((f"version: {name}", value) for name, value in about.get("versions", {}).items()),
        *((f"version: {name} (export)", value) for name, value in checks["packages"].items()),
    ]
    return f"## Training\n\n{table(rows, ('what', 'value'))}"


def _named(source):
    """A published source by its name; a path of somebody's disk by its last part."""
    if not source:
        return UNKNOWN
    return (
        source if source == IMAGENET or HUB.fullmatch(source) else f"{Path(source).name} (a file of the user)"
    )


def _limits(about, facts):
    known = (
        "`model.json` (`familiar`) describes them, and the column `unfamiliar` of zoo-pipeline's catalogue"
        " says how strange a galaxy is to the model. ONNX and the SavedModel do not say it."
        if about.get("familiar")
        else "This model has no description of them, so nothing says whether a galaxy is strange to it."
    )
    lines = [
        "For images unlike those of its training: another telescope, band, depth, scale or cut-out size, or"
        f" images without a galaxy in the middle. The model answers every image. {known}",
        "To call answers facts: it predicts what volunteers or labellers say, with their mistakes.",
        "To score it on galaxies that it has learned from.",
    ]
    if about["tree"]:
        lines.append(
            "For a question that a galaxy hardly leads to: look at the shares of earlier answers first."
        )
    if _simulated(facts):
        lines.insert(0, "For any statement about real galaxies: it has seen only simulated ones.")
    return "## What it must not be used for\n\n" + _listed(lines)


def _listed(lines):
    return "\n".join(f"- {line}" for line in lines)


def _licence(licence, facts, started):
    lines = [f"The weights: {licence}." if licence else "The weights: unknown, no licence was chosen."]
    if started:
        lines.append(
            f"They began with the weights of {_named(started.get('pretrained'))}, whose licence is"
            f" {started.get('licence') or UNKNOWN}; its conditions hold for these weights too."
        )
    if record := _record(facts):
        lines.append(f"The Zenodo record of the run has the licence {record.get('license', UNKNOWN)}.")
    return f"## Licence\n\n{_listed(lines)}"


def _citation(facts):
    """The software, the papers, and the data if the run has them."""
    cited, record = yaml.safe_load(CITATION.read_text()), _record(facts) or {}
    lines = [f"{cited['title']}, version {cited['version']} ({cited['license']}), the software."]
    for entry in cited["references"]:
        if entry["type"] == "data" and entry["doi"] != record.get("doi"):
            continue
        people = [f"{person['family-names']}, {person['given-names']}" for person in entry["authors"]]
        year = entry.get("year") or str(entry["date-published"])[:4]
        place = entry.get("journal") or entry["publisher"]["name"]
        volume = f" {entry['volume']}" if "volume" in entry else ""
        lines.append(
            f"{'; '.join(people[:3])}{' et al.' if len(people) > 3 else ''} {year}, {entry['title']},"
            f" {place}{volume}, https://doi.org/{entry['doi']}"
        )
    begun = "As far as you use them, and the source of the first weights if there is one:"
    return f"## Citation\n\n{begun}\n\n{_listed(lines)}"
