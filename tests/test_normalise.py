"""Finetuning with the pixels of the encoder: stored, predicted with, kept in chains and after a kill."""

import json
import shutil

import keras
import numpy as np
import pandas as pd
import pytest
from finetuned import BRIGHT, run_finetuning, write_labelled
from scipy.special import logit
from stored import IMAGE, train_member
from zoolib import finetune, predict
from zoolib.config.normalise import NAMED
from zoolib.job.logs import UserError
from zoolib.learning import checkpoints, datasets, models
from zoolib.learning.augment import PAPER, augmentation_of
from zoolib.learning.backbones import build_backbone
from zoolib.learning.features import features_of_store
from zoolib.scores.linear_probe import fit_probe, probe_task

ZOOBOT, FOREIGN = "hf://mwalmsley/zoobot-encoder-greyscale-resnet18", "hf://owner/encoder"
MEAN, STD = [0.449], [0.226]
QUICK = {"augment": False, "epochs": 2}


@pytest.fixture(scope="module")
def labelled(stored, tmp_path_factory):
    """The stored galaxies, labelled as bright or not."""
    return write_labelled(stored, tmp_path_factory.mktemp("labelled"), [BRIGHT], {"bright": lambda b: b})


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    """Imported encoders of Zoobot's author and of somebody else, with the mean and std of their configs."""
    folders = {}
    for name, source in {"zoobot": ZOOBOT, "foreign": FOREIGN}.items():
        keras.utils.set_random_seed(1)
        inputs = keras.Input((18, 18, 1))
        network = keras.Model(inputs, build_backbone("tiny", 18, 1, MEAN, STD)(inputs), name="galaxies")
        training = {"augmentation": PAPER, "pretrained": source, "backbone": "tiny", "licence": "x"}
        about = {
            "kind": "features",
            "tree": None,
            "labels": [],
            "columns": [],
            "image": {**IMAGE, "grey": "luma"},
        }
        folders[name] = tmp_path_factory.mktemp(name)
        about |= {"training": {**training, "mean": MEAN, "std": STD}, "scores": {}}
        models.save_model(network, about, folders[name] / "model.keras", folders[name] / "model.json")
    return folders


def scaling_of(model):
    layer = model.backbone.layers[1]
    return np.ravel([layer.scale, layer.offset]).tolist()


UNIT, IMAGENET = [1 / 255, 0], [1 / 255 / 0.226, -0.449 / 0.226]


@pytest.mark.parametrize(
    ("start", "normalise", "name", "scaling"),
    [
        ("zoobot", None, "unit", UNIT),
        ("foreign", None, "encoder", IMAGENET),
        ("zoobot", "encoder", "encoder", IMAGENET),
        ("foreign", {"mean": [0.0], "std": [255.0]}, "own", [1 / 255**2, 0]),
    ],
)
def test_a_finetuned_model_sees_the_pixels_of_its_encoder(
    labelled, encoders, tmp_path, caplog, start, normalise, name, scaling
):
    caplog.set_level("INFO", "zoolib")
    model, _ = run_finetuning(labelled, encoders[start], tmp_path, normalise=normalise, **QUICK)
    assert model.about["image"]["normalise"]["name"] == name and model.about["image"]["grey"] == "luma"
    assert scaling_of(model) == pytest.approx(scaling)
    assert f"normalise: {name} (pixels / 255, mean" in caplog.text and ", because " in caplog.text
    # A chained finetuning keeps the pixels, whatever its own start was imported from.
    again, _ = run_finetuning(labelled, tmp_path, tmp_path / "again", **QUICK)
    assert again.about["image"] == model.about["image"] and scaling_of(again) == scaling_of(model)
    # So does one from scratch: only the weights are forgotten.
    scratch, _ = run_finetuning(labelled, encoders[start], tmp_path / "s", True, normalise=normalise, **QUICK)
    assert scaling_of(scratch) == pytest.approx(scaling)


def test_a_wrong_number_of_channels_is_one_sentence(labelled, encoders, tmp_path):
    with pytest.raises(UserError, match="finetune.tasks, bright, normalise has 3 numbers .* sees 1 channel"):
        run_finetuning(labelled, encoders["zoobot"], tmp_path, normalise={"mean": [0] * 3, "std": [1] * 3})


def test_models_of_an_ensemble_may_see_different_pixels(labelled, encoders, tmp_path, stored):
    folders = [tmp_path / name for name in ("unit", "imagenet")]
    for folder in folders:
        run_finetuning(labelled, encoders["zoobot"], folder, normalise=folder.name, **QUICK)
    images = [str(stored / f"{number}.png") for number in range(6)]
    together = predict.load(*folders)
    alone = [predict.load(folder) for folder in folders]
    assert len({predict.identity_of(one.members) for one in (together, *alone)}) == 3
    means = [one.predict(images, samples=4)["bright"].to_numpy() for one in (together, *alone)]
    assert np.abs(means[1] - means[2]).max() > 1e-3
    # Dropout is drawn for each member of its own, so the mean is only nearly that of the two.
    np.testing.assert_allclose(means[0], (means[1] + means[2]) / 2, atol=0.05)
    # The same weights with other pixels are another model.
    about = json.loads((folders[0] / "model.json").read_text())
    del about["checksums"]
    about["image"]["normalise"]["name"] = "own"
    (folders[0] / "model.json").write_text(json.dumps(about))
    assert predict.identity_of(predict.load(folders[0]).members) != predict.identity_of(alone[0].members)


def test_a_model_without_the_keys_of_its_pixels_predicts_as_before(labelled, encoders, tmp_path, stored):
    run_finetuning(labelled, encoders["foreign"], tmp_path, **QUICK)
    images = [str(stored / "0.png"), str(stored / "1.png")]
    before = predict.load(tmp_path).predict(images, samples=4)
    about = json.loads((tmp_path / "model.json").read_text())
    del about["checksums"], about["image"]["normalise"], about["training"]["normalise"]
    (tmp_path / "model.json").write_text(json.dumps(about))
    after = predict.load(tmp_path).predict(images, samples=4)
    np.testing.assert_array_equal(before["bright"], after["bright"])


def test_the_probe_chooses_once_and_an_interrupted_training_keeps_the_choice(
    labelled, encoders, tmp_path, monkeypatch, caplog
):
    caplog.set_level("INFO", "zoolib")
    probed = []
    probe = finetune.probe_normalise

    def counted(backbone, stores, *arguments):
        probed.append({name: store.count for name, store in stores.items()})
        # That of `unit/255` is made the best: what the data say does not matter here.
        return {**probe(backbone, stores, *arguments), "unit/255": 0.0}

    monkeypatch.setattr(finetune, "probe_normalise", counted)
    begin = checkpoints.Checkpoint.on_epoch_end

    def killed(self, epoch, logs=None):
        begin(self, epoch, logs)
        raise KeyboardInterrupt

    settings = {"normalise": "probe", **QUICK, "epochs": 3}
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints.Checkpoint, "on_epoch_end", killed)
        with pytest.raises(KeyboardInterrupt):
            run_finetuning(labelled, encoders["zoobot"], tmp_path / "a", **settings)
    killed_model, _ = run_finetuning(labelled, encoders["zoobot"], tmp_path / "a", **settings)
    # The probe sees the galaxies of the training and those that decide when it stops, and no others.
    assert probed == [{"train": 40, "validation": 12}]
    assert "Training goes on after epoch 1" in caplog.text
    assert (
        "unit/255 (pixels / 255, mean [0.0], std [255.0]), because its linear probe is the best of"
        in caplog.text
    )
    assert not list((tmp_path / "a").glob("*.found.json"))
    model, _ = run_finetuning(labelled, encoders["zoobot"], tmp_path / "b", **settings)
    assert len(probed) == 2 and scaling_of(model) == pytest.approx([1 / 255**2, 0])
    assert model.about["image"] == killed_model.about["image"]
    assert set(model.about["training"]["normalise_losses"]) == set(NAMED)
    for one, other in zip(model.network.get_weights(), killed_model.network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("start", "name"), [("zoobot", "unit"), ("foreign", "encoder")])
def test_a_tree_that_is_trained_from_an_encoder_sees_its_pixels(stored, encoders, tmp_path, start, name):
    with pytest.raises(
        UserError, match="sees images of image.grey: luma, this run has mean; set image.grey to"
    ):
        train_member(stored, tmp_path, pretrained=str(encoders[start]), epochs=1)
    shutil.copytree(encoders[start], tmp_path / "start")
    about = json.loads((tmp_path / "start/model.json").read_text())
    del about["checksums"], about["image"]["grey"]
    (tmp_path / "start/model.json").write_text(json.dumps(about))
    model = train_member(stored, tmp_path, pretrained=str(tmp_path / "start"), epochs=1)
    assert model.about["image"]["normalise"]["name"] == name
    assert scaling_of(model) == pytest.approx(UNIT if name == "unit" else IMAGENET)
    # Its training continues with the same pixels.
    again = train_member(stored, tmp_path / "again", start_from=str(tmp_path), epochs=1)
    assert again.about["image"] == model.about["image"] and scaling_of(again) == scaling_of(model)


def test_the_linear_probe_sees_the_pixels_of_the_finetuning(labelled, encoders, tmp_path):
    """Its backbone was frozen, so the finetuned model's features are those that the probe learns from."""
    own = {"mean": [0.3], "std": [0.05]}
    model, _ = run_finetuning(labelled, encoders["zoobot"], tmp_path, normalise=own, **QUICK)
    galaxies, table = labelled / "galaxies.parquet", pd.read_parquet(labelled / "galaxies.parquet")
    fits = ["", "labels10-0-finetuned", "labels10-0-scratch", "all-scratch"]
    probe_task(galaxies, encoders["zoobot"], fits, {"": tmp_path / "model.json"}, tmp_path / "probe.parquet")
    found = pd.read_parquet(tmp_path / "probe.parquet").set_index(["fit", "id_str"])["bright"]
    assert set(found.index.get_level_values("fit")) == {"", "labels10-0-finetuned"}
    given = {}
    for name, folder in {"finetuned": tmp_path, "start": encoders["zoobot"]}.items():
        model = models.load_model(folder)
        store = datasets.from_catalog([table], [], model.about["image"])
        features = features_of_store(model.backbone, store, augmentation_of(model.about))[0]
        given[name] = logit(fit_probe(features, [BRIGHT], table, "here")(features)[:, 0])
    np.testing.assert_allclose(logit(found[""][table["id_str"]]), given["finetuned"], atol=0.01)
    assert np.abs(given["start"] - given["finetuned"]).max() > 0.5
