"""Published encoders become model folders: what is read of their config, what is refused, complete runs."""

import json
from types import SimpleNamespace

import keras
import numpy as np
import pandas as pd
import pytest
import yaml
from encoders import encoder_files, resnet18, write_encoder
from hub_server import HubServer, commit_of
from PIL import Image
from pipeline import copy_of_the_repository, overlay, planned, snakemake
from safetensors.numpy import save
from stored import IMAGE, SETTINGS, TREE, train_member
from zoolib import predict, pretrained, train
from zoolib.config.schema import check_configuration
from zoolib.config.sources import origin_of
from zoolib.job.logs import UserError
from zoolib.learning import models
from zoolib.learning.backbones import ZOO, build_backbone
from zoolib.quick import finetune as quick_finetune
from zoolib.weights.timm import set_timm_weights

RUN_IMAGE = {"size": 40, "crop": 0.8, "final_size": 32, "color": True, "encoding": "png"}


def convert(folder, files, image=None):
    """Import an encoder from a folder; its model folder is loaded in Keras's safe mode."""
    source = write_encoder(folder / "encoder", files)
    output = SimpleNamespace(model=folder / "out/model.keras", about=folder / "out/model.json")
    pretrained.import_backbone(str(source), output, image)
    return models.load_model(folder / "out")


def test_a_folder_that_timm_wrote_becomes_a_model_folder(tmp_path):
    files = encoder_files()
    model = convert(tmp_path, files)
    pixels = np.random.default_rng(1).uniform(0, 255, (3, 48, 48, 3)).astype("float32")
    # Without import_backbone: scaling to 0-1, mean and deviation are applied by hand.
    plain = build_backbone("resnet18", 48, 3)
    set_timm_weights(plain, "resnet18", resnet18())
    seen = 255 * (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    expected = plain.predict_on_batch(seen.astype("float32"))
    features = model.backbone.predict_on_batch(pixels)
    assert features.shape == (3, 512)
    assert np.abs(features - expected).max() < 1e-4 * expected.std()
    assert (model.kind, model.columns, model.tree) == ("features", [], None)
    assert model.about["image"] == {
        "size": 64,
        "crop": 0.75,
        "final_size": 48,
        "color": True,
        "encoding": "png",
        "interpolation": "bicubic",
    }
    origin = model.about["training"]
    assert (origin["backbone"], origin["licence"]) == ("resnet18", "apache-2.0")
    assert origin["interpolation"] == "bicubic"
    assert origin["pretrained"].endswith("/encoder") and len(origin["weights"]) == 64


def test_a_grey_encoder_has_one_channel_and_the_mean_of_three_means(tmp_path):
    model = convert(tmp_path, encoder_files(resnet18(channels=1)))
    assert (model.about["image"]["color"], model.about["image"]["grey"]) == (False, "luma")
    assert model.backbone.input_shape == (None, 48, 48, 1)
    assert model.about["training"]["mean"] == [pytest.approx(0.449)]
    assert model.about["training"]["std"] == [pytest.approx(0.226)]


@pytest.mark.parametrize(
    ("changes", "size", "crop", "final_size"),
    [
        ({"input_size": [3, 224, 224], "crop_pct": 0.95}, 236, 224 / 236, 224),
        ({"input_size": [3, 288, 288], "crop_pct": 1.0}, 288, 1.0, 288),
        ({"input_size": "silent", "crop_pct": "silent"}, 300, 0.75, 224),
        ({"input_size": [3, 448, 448], "crop_pct": "silent"}, 600, 0.75, 448),
    ],
)
def test_image_settings_are_timm_s_or_if_missing_zoobot_s(tmp_path, changes, size, crop, final_size):
    folder = write_encoder(tmp_path, encoder_files({}, **changes))
    settings = pretrained.read_timm_config(folder / "config.json", "x")
    found, channels = pretrained.timm_preprocessing(settings, {})
    image = found["image"]
    assert (image["size"], image["crop"], image["final_size"], channels) == (size, crop, final_size, 3)
    # timm: the image is brought to final_size / crop_pct.
    if changes["crop_pct"] != "silent":
        assert abs(size - final_size / changes["crop_pct"]) <= 1 and (size - final_size) % 2 == 0


def test_without_mean_and_deviation_pixels_are_divided_by_255(tmp_path):
    model = convert(tmp_path, encoder_files(mean="silent", std="silent"))
    plain = build_backbone("resnet18", 48, 3)
    set_timm_weights(plain, "resnet18", resnet18())
    pixels = np.random.default_rng(1).uniform(0, 255, (2, 48, 48, 3)).astype("float32")
    difference = model.backbone.predict_on_batch(pixels) - plain.predict_on_batch(pixels)
    assert np.abs(difference).max() < 1e-5
    assert model.about["training"]["mean"] is None


def without(name):
    tensors = resnet18()
    del tensors[name]
    return tensors


WRONG = {
    "another architecture": (
        lambda: encoder_files({}, architecture="maxvit_rmlp_tiny_rw_224.sw_in1k"),
        "its architecture is 'maxvit_rmlp_tiny_rw_224', which is not supported; expected one of"
        f" {', '.join(ZOO)};",
    ),
    "a weight missing": (lambda: encoder_files(without("layer3.0.bn2.bias")), "'layer3.0.bn2.bias'"),
    "a weight left over": (
        lambda: encoder_files({**resnet18(), "layer9.weight": np.zeros(3, "float32")}),
        "'layer9.weight'",
    ),
    "another shape": (
        lambda: encoder_files({**resnet18(), "layer4.1.bn2.weight": np.zeros(99, "float32")}),
        "'layer4.1.bn2.weight' has the shape (99,), expected (512,)",
    ),
    "a pickle under another name": (
        lambda: {**encoder_files({}), "model.safetensors": b"PK\x03\x04" + bytes(200)},
        "its model.safetensors is a pickle under another name, and opening it can run any program",
    ),
    "damaged weights": (
        lambda: {**encoder_files({}), "model.safetensors": save(resnet18())[:100_000]},
        "its model.safetensors cannot be read",
    ),
    "no JSON": (lambda: {**encoder_files({}), "config.json": b"{"}, "its config.json cannot be read"),
    "another program's JSON": (
        lambda: {**encoder_files({}), "config.json": b'{"model_type": "bert"}'},
        "its config.json has no key 'architecture', expected what timm writes",
    ),
    "a list": (lambda: {**encoder_files({}), "config.json": b"[]"}, "its config.json cannot be read"),
    "a crop of nothing": (lambda: encoder_files({}, crop_pct=0), "crop_pct is 0, expected a number from 0.1"),
    "a rectangle": (lambda: encoder_files({}, input_size=[3, 48, 64]), "input_size is [3, 48, 64], expected"),
    "five channels": (lambda: encoder_files({}, input_size=[5, 48, 48]), "1 or 3 channels"),
    "a deviation of nothing": (
        lambda: encoder_files({}, std=[0, 1, 1]),
        "std is [0, 1, 1], expected numbers",
    ),
    "a mean that is none": (lambda: encoder_files({}, mean=[float("nan")] * 3), "expected finite numbers"),
    "a mean alone": (lambda: encoder_files({}, std="silent"), "only one of mean and std is there"),
    "an unknown word": (lambda: encoder_files({}, interpolation="cubist"), "interpolation is 'cubist'"),
    "two channels": (
        lambda: encoder_files(resnet18(channels=2)),
        "'conv1.weight' has the shape (64, 2, 7, 7)",
    ),
    "no number": (
        lambda: encoder_files({**resnet18(), "bn1.bias": np.full(64, np.nan, "float32")}),
        "the weight 'bn1.bias' in its model.safetensors has numbers that are not finite",
    ),
    "two means": (lambda: encoder_files(mean=[0.5, 0.5]), "mean has 2 numbers and the encoder 3 channels"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_encoder_is_one_message_and_leaves_nothing(tmp_path, case):
    files, words = WRONG[case]
    with pytest.raises(UserError) as caught:
        convert(tmp_path, files())
    message = str(caught.value)
    assert words in message and "\n" not in message and message.endswith("."), message
    assert message.startswith((f"{tmp_path}/encoder: ", "config.json: "))
    assert not list(tmp_path.glob("out/*"))


def test_a_run_s_images_must_fit_the_encoder(tmp_path):
    assert convert(tmp_path, encoder_files(), RUN_IMAGE).about["image"] == RUN_IMAGE
    with pytest.raises(UserError, match="sees colour images .*image.color is false; set image.color to true"):
        convert(tmp_path, encoder_files(), {**RUN_IMAGE, "color": False})
    with pytest.raises(UserError, match="sees grey images .*image.color is true; set image.color to false"):
        convert(tmp_path, encoder_files(resnet18(channels=1)), RUN_IMAGE)


def test_a_backbone_without_a_head_cannot_predict_or_continue_training(tmp_path):
    convert(tmp_path, encoder_files(), RUN_IMAGE)
    with pytest.raises(UserError, match="without a head, so it cannot predict answers; finetune it first"):
        predict.load(tmp_path / "out")
    with pytest.raises(UserError, match="without a head.*train.pretrained"):
        train.build_network(TREE, RUN_IMAGE, {**SETTINGS, "start_from": str(tmp_path / "out")})


@pytest.mark.parametrize("mixed", [False, True])
def test_a_tree_gets_a_new_head_on_the_pretrained_backbone(model_folder, tmp_path, mixed, monkeypatch):
    monkeypatch.setattr(train, "mixed_policy", lambda: "mixed_bfloat16")
    settings = {**SETTINGS, "pretrained": str(model_folder), "mixed_precision": mixed}
    try:
        network = train.build_network(TREE, IMAGE, settings)
        about = {"kind": "concentrations", "tree": TREE.to_dict(), "columns": TREE.columns, "image": IMAGE}
        models.save_model(
            network, {**about, "training": {}}, tmp_path / "model.keras", tmp_path / "model.json"
        )
    finally:
        keras.config.set_dtype_policy("float32")
    start = models.load_model(model_folder)
    for old, new in zip(
        start.backbone.get_weights(), network.get_layer("backbone").get_weights(), strict=True
    ):
        np.testing.assert_array_equal(old, new)
    heads = [model.get_layer("head").get_weights()[0] for model in (start.network, network)]
    assert heads[0].shape == heads[1].shape and not np.array_equal(*heads)
    pixels = np.random.default_rng(1).uniform(0, 255, (4, 18, 18, 1)).astype("float32")
    again = models.load_model(tmp_path)
    policy = "mixed_bfloat16" if mixed else "float32"
    assert {layer.dtype_policy.name for layer in again.backbone.layers[1:]} == {policy}
    features = again.backbone.predict_on_batch(pixels)
    assert features.dtype == (policy.removeprefix("mixed_"))
    expected = start.backbone.predict_on_batch(pixels)
    np.testing.assert_allclose(features, expected, atol=(0.03 if mixed else 1e-6) * np.abs(expected).max())
    wrong = {**IMAGE, "final_size": 20}
    with pytest.raises(UserError, match="sees images of image.final_size: 18, this run has 20"):
        train.build_network(TREE, wrong, settings)


def test_a_member_says_what_it_started_from(stored, model_folder, tmp_path):
    model = train_member(stored, tmp_path, pretrained=str(model_folder), backbone="EfficientNetB0", epochs=1)
    origin = model.about["training"]
    assert (origin["backbone"], origin["pretrained"]) == ("tiny", str(model_folder))


TEST = ("--configfile", "config/test.yaml")
SOURCE = "hf://owner/encoder"
SCORES = "results/encoders/evaluate/ring/scores.csv"


@pytest.fixture(scope="module")
def hub():
    """A server with the encoder at two revisions."""
    with HubServer() as running:
        running.add("owner/encoder", encoder_files())
        running.add("owner/encoder", encoder_files(resnet18(seed=1)), "v2")
        yield running


@pytest.fixture(scope="module")
def run(hub, tmp_path_factory):
    """A copy of the repository, and the overlay and the environment to run it with."""
    folder = tmp_path_factory.mktemp("encoders")
    repo = copy_of_the_repository(folder / "repo")
    task = {"name": "ring", "table": "rings.csv", "label": "ring", "pretrained": SOURCE, "epochs": 2}
    task |= {"split": {"train": 0.6, "val": 0.2, "test": 0.2}, "batch_size": 32}
    task |= {"strategy": {"name": "two_stage", "blocks": 2, "learning_rate": 0.0001, "epochs": 1}}
    content = {"run": "encoders", "predict": {"targets": []}, "evaluate": {"target": None}}
    path = overlay(folder, "encoders", {**content, "finetune": {"tasks": [task]}})
    environment = {"HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "cache"), "HF_TOKEN": ""}
    environment["NO_PROXY"] = "127.0.0.1,localhost"
    snakemake(repo, SCORES, *TEST, path, **environment)
    return repo, path, environment


def test_rings_are_finetuned_from_a_repository(run, hub):
    repo, path, environment = run
    results = repo / "results/encoders"
    (encoder,) = (results / "pretrained").iterdir()
    origin = json.loads((encoder / "model.json").read_text())["training"]
    assert (origin["pretrained"], origin["revision"]) == (SOURCE, commit_of(encoder_files()))
    about = json.loads((results / "finetune/ring/model.json").read_text())
    view = {"size": 64, "crop": 0.75, "final_size": 48, "color": True, "encoding": "png"}
    pixels = about["image"].pop("normalise")
    assert (pixels["name"], pixels["mean"]) == ("encoder", [0.485, 0.456, 0.406])
    assert about["image"] == {**view, "interpolation": "bicubic"}
    assert about["training"]["backbone"] == "resnet18"
    kept = {key: origin[key] for key in ("pretrained", "backbone", "licence", "revision", "weights")}
    assert about["training"]["origin"] == kept == origin_of(results / "finetune/ring")
    assert set(pd.read_csv(results / "finetune/ring/history.csv")["stage"]) == {"head", "unfrozen"}
    assert set(pd.read_csv(repo / SCORES)["label"]) == {"ring"}
    log = (repo / f"logs/encoders/import_backbone/{encoder.name}.log").read_text()
    assert "model.safetensors, 44.8 MB" in log and origin["revision"] in log and "licence: apache-2.0" in log
    assert hub.sent.count("model.safetensors") == 1
    assert planned(repo, SCORES, *TEST, path, **environment) == {}


def test_only_another_revision_is_imported_again(run, tmp_path):
    repo, path, environment = run
    content = yaml.safe_load(path.read_text())
    (task,) = content["finetune"]["tasks"]
    slower = overlay(tmp_path, "slower", {"finetune": {"tasks": [{**task, "learning_rate": 0.0005}]}})
    jobs = planned(repo, "finetune", *TEST, path, slower, **environment)
    assert jobs["finetune_task"] == 1 and not {"import_backbone", "build_task_catalog_ring"} & set(jobs)
    other = overlay(tmp_path, "other", {"finetune": {"tasks": [{**task, "pretrained": f"{SOURCE}@v2"}]}})
    jobs = planned(repo, "finetune", *TEST, path, other, **environment)
    assert (jobs["import_backbone"], jobs["finetune_task"]) == (1, 1)


def test_a_tree_is_trained_from_a_repository_too(run, tmp_path):
    repo, _, environment = run
    tree = overlay(
        tmp_path, "tree", {"run": "tree", "image": {"color": True}, "train": {"pretrained": SOURCE}}
    )
    snakemake(repo, "pretrained", *TEST, tree, **environment)
    (folder,) = (repo / "results/tree/pretrained").iterdir()
    image = json.loads((folder / "model.json").read_text())["image"]
    assert image == {"size": 48, "crop": 0.75, "final_size": 36, "color": True, "encoding": "png"}
    jobs = planned(repo, "train", *TEST, tree, **environment)
    assert jobs["train_member"] == 1 and "import_backbone" not in jobs


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            {"pretrained": SOURCE, "start_from": "mine/model"},
            "train has both pretrained (a backbone that gets",
        ),
        ({"pretrained": "imagenet"}, "train.pretrained is imagenet, whose networks need colour images, but"),
        ({"pretrained": "mine/nothing"}, "train.pretrained is 'mine/nothing', expected a model folder"),
        (
            {"pretrained": "results/gz_decals/train/all/0"},
            "train.pretrained is 'results/gz_decals/train/all/0', a model",
        ),
        ({"pretrained": "hf://nano"}, "train.pretrained is 'hf://nano', expected hf://organisation/name or"),
    ],
)
def test_a_wrong_source_of_a_training_is_one_message(repo, tmp_path, monkeypatch, content, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine/model").mkdir(parents=True)
    for file in ("model.keras", "model.json"):
        (tmp_path / "mine/model" / file).touch()
    config = yaml.safe_load((repo / "config/config.yaml").read_text())
    config["train"].update(content)
    with pytest.raises(UserError) as caught:
        check_configuration(config, repo / "workflow/schemas/config.schema.yaml", repo / "config/trees")
    assert str(caught.value).startswith(f"Configuration: {message}")


def test_make_finetune_takes_every_source(run, tmp_path, monkeypatch, model_folder):
    repo, _, environment = run
    monkeypatch.chdir(repo)
    for name in ("dark", "bright"):
        (repo / "mine/by_class" / name).mkdir(parents=True)
        for number in range(3):
            Image.new("L", (24, 24), number).save(repo / "mine/by_class" / name / f"{name}{number}.png")
    write_encoder(repo / "mine/encoder", encoder_files({}))
    (repo / "mine/old.index").touch()
    tasks = []
    for number, source in enumerate((SOURCE, "imagenet", "mine/encoder", "mine/old", str(model_folder))):
        content, _ = quick_finetune.plan({"LABELS": "mine/by_class", "MODEL": source, "NAME": f"n{number}"})
        tasks += content["finetune"]["tasks"]
        assert tasks[-1]["pretrained"] == source
    path = overlay(tmp_path, "tasks", {**content, "finetune": {"tasks": tasks}})
    jobs = planned(repo, "finetune", "--configfile", path, **environment)
    # The model folder is used where it is.
    assert (jobs["import_backbone"], jobs["finetune_task"]) == (4, 5) and "train_member" not in jobs
