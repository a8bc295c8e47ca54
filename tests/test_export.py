"""The stage export: each format gives the model's numbers, and the card says what the files say."""

import json
import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import onnxruntime
import pandas as pd
import pytest
import tensorflow as tf
import yaml
from huggingface_hub import ModelCard
from PIL import Image
from zoolib import api
from zoolib.config.schema import check_configuration
from zoolib.data.images import load_image
from zoolib.export import write_card
from zoolib.job import logs
from zoolib.job.logs import UserError
from zoolib.learning import exchange
from zoolib.learning.augment import augmentation_of
from zoolib.learning.datasets import central_views
from zoolib.learning.models import load_model

SIMULATED = {"record": None, "simulate": {"galaxies": 52}, "sample": None}
REAL = {"record": 4573248, "simulate": None, "sample": None}
VOTES = {"name": "dr5", "table": "gz_decals_volunteers_5.parquet", "archives": [], "query": None}
FACTS = {
    "run": "mine",
    "model": "train/metrics/0",
    "zenodo": SIMULATED,
    "catalogs": [VOTES],
    "split": {"train": 0.7, "val": 0.1, "test": 0.2},
    "min_votes": 10,
    "simulated_start": False,
}


@pytest.fixture(scope="module")
def exported(model_folder, tmp_path_factory):
    """The folder that the trained model of `model_folder` is exported to."""
    folder = tmp_path_factory.mktemp("exported") / "0"
    exchange.export_model(model_folder, folder)
    return folder


def card_of(folder, licence=None, tables=None, **facts):
    """The text of a card; `tables` are those of the run."""
    for name, table in {
        "summary": pd.DataFrame({"step": ["split train"], "galaxies": [40]}),
        **(tables or {}),
    }.items():
        table.to_csv(folder.parent / f"{name}.csv", index=False)
    paths = [folder.parent / f"{name}.csv" for name in ("summary", *(tables or {}))]
    output = folder / "README.md"
    write_card(folder / "model.json", folder / "checks.json", paths, FACTS | facts, licence, output)
    return output.read_text()


def differs(found, expected):
    return np.abs(found / expected - 1).max()


def test_each_format_gives_the_numbers_of_the_model(model_folder, exported):
    images = np.random.default_rng(5).uniform(0, 255, (7, 18, 18, 1)).astype("float32")
    expected = exchange.outputs_of(load_model(model_folder).network, images)
    session = onnxruntime.InferenceSession(exported / "model.onnx")
    (found,) = session.run(["outputs"], {"image": images})
    assert (
        differs(found, expected) < 1e-4 > differs(session.run(None, {"image": images[:1]})[0], expected[:1])
    )
    assert session.get_inputs()[0].shape == ["galaxies", 18, 18, 1]
    assert json.loads(session.get_modelmeta().custom_metadata_map["columns"]) == ["a_x", "a_y", "b_u", "b_v"]
    assert differs(tf.saved_model.load(str(exported / "saved_model")).serve(images).numpy(), expected) < 1e-4
    checks = json.loads((exported / "checks.json").read_text())
    assert set(checks["differences"]) == {"model.keras", "model.onnx", "saved_model"}
    assert max(checks["differences"].values()) < checks["tolerance"] == 1e-4
    assert checks["precision"] == "float32" and checks["difference_of_precision"] == 0


def test_the_exported_folder_is_a_model_folder(model_folder, exported, stored):
    images = [str(stored / f"{number}.png") for number in range(3)]
    first, again = (api.load(folder).predict(images, samples=3) for folder in (model_folder, exported))
    pd.testing.assert_frame_equal(first, again)


def test_whoever_has_only_the_card_makes_the_same_numbers(model_folder, exported, tmp_path):
    """The example of the card runs without TensorFlow and without this project."""
    (example,) = re.findall(r"```python\n(.*?)```", card_of(exported), re.S)
    smooth = np.random.default_rng(2).integers(0, 255, (9, 12, 3), np.uint8)
    Image.fromarray(smooth).resize((90, 60), Image.Resampling.BICUBIC).save(tmp_path / "galaxy.png")
    shutil.copy(exported / "model.onnx", tmp_path)
    example += "import sys\nassert not {'tensorflow', 'keras', 'zoolib'} & set(sys.modules)\n"
    example += "np.save('outputs.npy', outputs)\n"
    subprocess.run([sys.executable, "-c", example], cwd=tmp_path, check=True)
    model = load_model(model_folder)
    pixels = load_image(tmp_path / "galaxy.png", 24, color=False)[None]
    view = central_views(pixels, augmentation_of(model.about), model.about["image"]).numpy()
    assert differs(np.load(tmp_path / "outputs.npy"), exchange.outputs_of(model.network, view)) < 1e-4


def test_mixed_precision_and_layers_that_onnx_does_not_know(tmp_path):
    """ONNX has no erfc, which the exact GELU needs; tf2onnx takes numbers of Normalization for inputs."""
    image = keras.Input((4, 4, 3), name="image")
    x = keras.layers.Normalization(mean=[90.0, 100.0, 110.0], variance=[900.0, 800.0, 700.0])(image)
    x = keras.layers.Dense(8, activation="gelu", dtype="mixed_bfloat16")(keras.layers.Flatten()(x))
    network = keras.Model(image, keras.layers.Dense(3, activation="softplus", dtype="float32")(x))
    assert exchange.precision_of(network) == "mixed_bfloat16"
    plain, images = exchange.in_float32(network), exchange.example_images((4, 4, 3))
    expected = exchange.outputs_of(plain, images)
    exchange.write_onnx(plain, tmp_path / "model.onnx", {})
    found = exchange.outputs_of_onnx(tmp_path / "model.onnx", images)
    assert exchange.greatest_difference(found, expected) < 1e-5
    # bfloat16 has three digits.
    assert 1e-4 < exchange.greatest_difference(exchange.outputs_of(network, images), expected) < 0.1
    assert np.ptp(expected, axis=0).min() > 0.1


def test_a_difference_is_relative_to_the_size_of_an_output():
    expected = np.array([[100.0, 0.001], [50.0, 0.0001]])
    assert exchange.greatest_difference(expected + [[0.0, 0.0], [0.01, 0.0]], expected) == pytest.approx(1e-4)
    away = expected + [[0.0, 0.0], [0.0, 1e-5]]
    assert exchange.greatest_difference(away, expected) == pytest.approx(1e-2)
    # A probability is compared with 1, however small it is.
    assert exchange.greatest_difference(away, expected, [1]) == pytest.approx(1e-5)
    assert exchange.greatest_difference(np.full((2, 2), np.nan), expected) == np.inf


def test_other_numbers_or_a_missing_package_end_with_a_sentence(model_folder, tmp_path, monkeypatch):
    made = exchange.outputs_of_saved_model
    monkeypatch.setattr(exchange, "write_onnx", lambda *_: None)
    monkeypatch.setattr(
        exchange, "outputs_of_onnx", lambda path, images: made(path.with_name("saved_model"), images)
    )
    monkeypatch.setattr(exchange, "outputs_of_saved_model", lambda *given: 1.001 * made(*given))
    with pytest.raises(
        UserError, match="saved_model: gives other numbers .* 1.0e-03 .* at most 1e-04; nothing"
    ):
        exchange.export_model(model_folder, tmp_path / "new")
    monkeypatch.setattr(exchange, "PACKAGES", ("onnx", "tf3onnx"))
    with pytest.raises(UserError, match="package tf3onnx is not installed, .*make env"):
        exchange.export_model(model_folder, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_what_is_not_known_is_called_unknown(exported):
    text = card_of(exported)
    front = ModelCard(text).data.to_dict()
    assert front["license"] == "unknown" and front["library_name"] == "keras" and "metrics" not in front
    for words in (
        "it says nothing about the sky",
        "The weights: unknown, no licence was chosen.",
        "Not measured: the run has compared no predictions of this model",
        "| gz_decals_volunteers_5.parquet | unknown | dr5 | none |",
        "| 2 | b | u | a_x |",
        "| began with | random weights |",
    ):
        assert words in text
    # The data of the record were not used.
    assert "10.5281/zenodo.4573248" not in text and "10.1093/mnras/stab2093" in text


def test_the_card_has_data_scores_coverage_licences_and_citation(exported, tmp_path):
    folder = tmp_path / "0"
    shutil.copytree(exported, folder)
    about = json.loads((folder / "model.json").read_text())
    begun = {"pretrained": "hf://mine/encoder", "revision": "abc", "licence": "gpl-3.0"}
    about["training"] |= {"origin": begun, "pretrained": "/home/me/encoder"}
    (folder / "model.json").write_text(json.dumps(about))
    scores = pd.DataFrame(
        {"question": ["a"], "subset": ["all"], "count": [9], "accuracy": [0.98765], "f1": [np.nan]}
    )
    covered = {"answer": "all", "measure": "votes", "selected": "predicted", "galaxies": 300, "expected": 0.9}
    coverage = pd.DataFrame([{"question": "a", "stated": 0.9, "actual": 0.87, **covered}])
    text = card_of(folder, "CC-BY-4.0", {"scores": scores, "coverage": coverage}, zenodo=REAL)
    front = yaml.safe_load(text.split("---")[1])
    assert front["license"] == "cc-by-4.0" and front["metrics"] == ["accuracy", "f1"]
    for words in (
        "| gz_decals_volunteers_5.parquet | 364d0b598b7d2958553350c5ce0ffc14 | dr5 | none |",
        "https://doi.org/10.5281/zenodo.4573248, licence CC-BY-4.0.",
        "| a | all | 9 | 0.9877 |  |",
        "| a | votes | 300 | -3.0 |",
        "The weights: CC-BY-4.0.",
        "began with the weights of hf://mine/encoder, whose licence is gpl-3.0; its conditions hold",
        "| split train | 40 |",
    ):
        assert words in text
    assert "simulated" not in text.replace("simulated probability", "") and "/home/me" not in text


def test_a_kill_leaves_no_half_export(model_folder, tmp_path, monkeypatch):
    """Files get their names one by one, each whole; a repeated job replaces what is there."""
    copied = shutil.copyfile
    seen = []

    def killed(source, target):
        seen.append(str(target))
        if len(seen) > 4:
            raise KeyboardInterrupt
        return copied(source, target)

    monkeypatch.setattr(exchange.shutil, "copyfile", killed)
    monkeypatch.setattr(exchange, "_check", lambda *_: {})
    monkeypatch.setattr(logs, "_turn", None)
    with pytest.raises(KeyboardInterrupt):
        exchange.export_model(model_folder, tmp_path / "new")
    left = [path for path in (tmp_path / "new").rglob("*") if path.is_file()]
    assert 0 < len(left) < 4 and not [path for path in left if path.name.startswith(".")]


@pytest.mark.parametrize("licence", ["CC BY 4.0", ""])
def test_a_licence_is_an_identifier(repo, licence):
    config = yaml.safe_load((repo / "config/config.yaml").read_text())
    config["export"]["licence"] = licence
    with pytest.raises(UserError, match="export.licence is .*, expected an identifier .* CC-BY-4.0"):
        check_configuration(config, repo / "workflow/schemas/config.schema.yaml", repo / "config/trees")
