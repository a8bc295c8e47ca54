"""Finetuning: what each stage moves, which weights are kept, every kind of label, and error messages."""

import os
import shutil
import time
import zipfile

import finetuned
import keras
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from finetuned import BRIGHT, run_finetuning, write_labelled
from labelled import Task, picture
from zoolib import finetune
from zoolib.config.labels import Label
from zoolib.config.recipes import complete_head
from zoolib.config.strategies import Stage
from zoolib.config.trees import DecisionTree
from zoolib.data.catalogs import Catalog, read_catalog, write_catalog
from zoolib.data.fits import read_fit
from zoolib.data.learned import NEITHER, OWN, Learned
from zoolib.job.logs import UserError
from zoolib.job.provenance import hash_of
from zoolib.learning import checkpoints, datasets, fitting, models
from zoolib.learning.augment import augmentation_of
from zoolib.learning.backbones import build_backbone
from zoolib.learning.blocks import blocks_of, nested_layers
from zoolib.learning.features import features_of_store
from zoolib.learning.label_heads import LabelsLoss, labels_head
from zoolib.scores.linear_probe import fit_probe

TREE = DecisionTree.from_dict({"name": "mine", "questions": {"glow": {"answers": ["bright", "dim"]}}})
QUICK = {"augment": False, "epochs": 30, "learning_rate": 0.02}


@pytest.fixture(scope="module")
def labelled(stored, tmp_path_factory):
    """The stored galaxies, labelled as bright or not."""
    return write_labelled(stored, tmp_path_factory.mktemp("labelled"), [BRIGHT], {"bright": lambda b: b})


def layers_of(backbone):
    """The layers with weights, from the stem to the top, by names that do not depend on earlier models."""
    kinds, found = {"Conv2D": 0, "BatchNormalization": 0}, {}
    for layer in nested_layers(backbone):
        if layer.weights:
            kind = type(layer).__name__
            found[f"{kind}{kinds[kind]}"] = layer
            kinds[kind] += 1
    return found


def state_of(backbone):
    """{(layer, `weights` or `statistics`): its numbers}."""
    found = {}
    for name, layer in layers_of(backbone).items():
        for weight in layer.weights:
            what = "statistics" if "moving" in weight.name else "weights"
            numbers = keras.ops.convert_to_numpy(weight)
            found.setdefault((name, what), []).append(numbers)
    return found


def moved(before, after):
    return {
        key for key in before if any((a != b).any() for a, b in zip(before[key], after[key], strict=True))
    }


@pytest.fixture
def stages_seen(monkeypatch):
    """For each stage: (layers whose weights moved, layers whose statistics moved, whether the head moved)."""
    seen = []
    fit = fitting.fit

    def watched(network, *arguments, **settings):
        whole = "backbone" in [layer.name for layer in network.layers]
        backbone = network.get_layer("backbone") if whole else None
        head = network.get_layer("head") if whole else network
        before = state_of(backbone) if whole else {}
        head_before = head.get_weights()
        history, last = fit(network, *arguments, **settings)
        # The best epoch may be the first one: only the last weights show what the stage moved.
        network.set_weights(last)
        changed = moved(before, state_of(backbone)) if whole else set()
        layers = {what: sorted(n for n, w in changed if w == what) for what in ("weights", "statistics")}
        head_moved = any((a != b).any() for a, b in zip(head_before, head.get_weights(), strict=True))
        seen.append((layers["weights"], layers["statistics"], head_moved))
        return history, last

    monkeypatch.setattr(fitting, "fit", watched)
    return seen


CONVOLUTIONS = [f"Conv2D{number}" for number in range(5)]
NORMS = [f"BatchNormalization{number}" for number in range(5)]
ONLY_HEAD = ([], [], True)
ALL = (CONVOLUTIONS, [], True)


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        ("freeze", [ONLY_HEAD]),
        ("no_freeze", [ALL]),
        ({"name": "freeze_unfreeze", "unfreeze_epoch": 1}, [ONLY_HEAD, ALL]),
        (
            {"name": "unfreeze_milestones", "epochs": [1, 2], "blocks": 2},
            [ONLY_HEAD, (CONVOLUTIONS[3:], [], True), ALL],
        ),
        (
            {"name": "unfreeze_milestones", "epochs": [1, 2], "layers": 3},
            [ONLY_HEAD, (CONVOLUTIONS[4:], [], True), ALL],
        ),
        (
            {"name": "two_stage", "blocks": 1, "learning_rate": 0.001, "epochs": 1},
            [ONLY_HEAD, (CONVOLUTIONS[4:], [], True)],
        ),
        ({"name": "layer_decay", "decay": 0.5}, [ALL]),
        ({"name": "finetuned.LastBlockFast", "times": 2}, [(CONVOLUTIONS[4:], [], True)]),
    ],
)
def test_each_stage_moves_just_its_layers(labelled, model_folder, tmp_path, stages_seen, strategy, expected):
    run_finetuning(labelled, model_folder, tmp_path, strategy=strategy)
    assert stages_seen == expected


def test_batchnorm_trains_if_the_task_says_so(labelled, model_folder, tmp_path, stages_seen):
    _, _ = run_finetuning(labelled, model_folder, tmp_path, train_bn=True, epochs=1)
    assert stages_seen == [(NORMS, NORMS, True)]


def test_layer_decay_moves_the_stem_least(labelled, model_folder, tmp_path):
    before = state_of(models.load_model(model_folder).backbone)
    strategy = {"name": "layer_decay", "decay": 0.1}
    model, _ = run_finetuning(
        labelled, model_folder, tmp_path, strategy=strategy, epochs=1, learning_rate=0.001
    )
    after = state_of(model.backbone)
    # Each step of Adam moves every weight by about the learning rate.
    steps = [np.abs(after[name, "weights"][0] - before[name, "weights"][0]).mean() for name in CONVOLUTIONS]
    ratios = np.array(steps[:-1]) / steps[1:]
    assert ratios.min() > 0.05
    assert ratios.max() < 0.2


@pytest.mark.parametrize("rates", [{}, {"conv9": 0.5}])
def test_a_strategy_of_one_s_own_names_layers_that_exist(
    labelled, model_folder, tmp_path, monkeypatch, rates
):
    layers = () if rates else ("conv9",)
    monkeypatch.setattr(
        finetuned.LastBlockFast,
        "stages",
        lambda self, blocks, task: [Stage("last", layers, 1, 0.1, None, rates)],
    )
    expected = (
        r"finetune.tasks, bright: .* stage 'last' names the layer 'conv9', expected .*such as conv2d\w* "
    )
    with pytest.raises(UserError, match=expected):
        run_finetuning(labelled, model_folder, tmp_path, strategy="finetuned.LastBlockFast")
    assert not list(tmp_path.rglob("model*"))


def test_a_strategy_s_own_optimizer_trains(labelled, model_folder, tmp_path, stages_seen, monkeypatch):
    built, build = [], fitting.build_optimizer
    monkeypatch.setattr(
        fitting, "build_optimizer", lambda *given: built.append((given, build(*given))) or built[-1][1]
    )
    strategy = {"name": "adamw_layer_decay", "learning_rate": 0.003, "weight_decay": 0.01, "n_blocks": 2}
    run_finetuning(labelled, model_folder, tmp_path, strategy=strategy, optimizer="sgd", weight_decay=0.5)
    (((settings, _, rates), optimizer),) = built
    assert isinstance(optimizer, keras.optimizers.AdamW)
    assert settings["learning_rate"] == 0.003 and settings["weight_decay"] == 0.01
    assert settings["decay_all"] is False
    assert sorted(set(rates.values())) == [0.75, 1]
    assert stages_seen == [(CONVOLUTIONS[3:], [], True)]


def test_the_history_names_the_stages_and_no_layer_stays_frozen(labelled, model_folder, tmp_path):
    strategy = {"name": "two_stage", "learning_rate": 0.001, "epochs": 2}
    model, history = run_finetuning(labelled, model_folder, tmp_path, strategy=strategy, epochs=2)
    assert list(history["stage"]) == ["head"] * 2 + ["unfrozen"] * 2
    assert list(history["epoch"]) == [1, 2, 3, 4]
    assert all(layer.trainable for layer in nested_layers(model.backbone))
    assert not list(tmp_path.rglob("checkpoint.npz"))
    learned = Learned(model.about)
    assert list(learned.codes(["J0", "J51", "J52"])) == [OWN, OWN, NEITHER]
    # Those that the backbone has learned from are the same.
    assert set(learned.backbone) == set(learned.own)


def test_a_second_stage_that_is_no_better_is_not_kept(labelled, model_folder, tmp_path):
    head, _ = run_finetuning(labelled, model_folder, tmp_path / "head")
    ruin = {"name": "two_stage", "learning_rate": 10.0, "epochs": 1, "patience": 1}
    both, history = run_finetuning(labelled, model_folder, tmp_path / "both", strategy=ruin)
    losses = history.groupby("stage")["val_loss"].min()
    assert losses["unfrozen"] > losses["head"]
    for one, other in zip(head.network.get_weights(), both.network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert both.about["scores"]["val_loss"] == pytest.approx(losses["head"])


@pytest.mark.parametrize("strategy", [{"name": "freeze_unfreeze", "unfreeze_epoch": 2}, "freeze"])
def test_an_interrupted_finetuning_ends_with_the_same_weights(
    labelled, model_folder, tmp_path, monkeypatch, strategy
):
    schedule = "plateau" if strategy == "freeze" else "cosine"
    # Without `augment` the head learns from features first, and then everything from views.
    changes = {"strategy": strategy, "schedule": schedule, "augment": None, "batch_size": None}
    changes["head"] = complete_head("recommended")
    whole, _ = run_finetuning(labelled, model_folder, tmp_path / "whole", **changes)
    saved = checkpoints.Checkpoint.on_epoch_end
    epochs = []

    def stopped(self, epoch, logs=None):
        saved(self, epoch, logs)
        epochs.append(epoch)
        if len(epochs) in (1, 3):
            raise KeyboardInterrupt

    monkeypatch.setattr(checkpoints.Checkpoint, "on_epoch_end", stopped)
    for _ in range(3):
        try:
            cut, history = run_finetuning(labelled, model_folder, tmp_path / "cut", **changes)
        except KeyboardInterrupt:
            continue
    assert len(history) == 3
    for one, other in zip(whole.network.get_weights(), cut.network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


def test_without_augmentation_a_frozen_backbone_runs_once(labelled, model_folder, tmp_path, monkeypatch):
    passes = []
    features = finetune.features_of_store
    monkeypatch.setattr(finetune, "features_of_store", lambda *given: passes.append(1) or features(*given))
    model, history = run_finetuning(labelled, model_folder, tmp_path, **QUICK)
    assert len(passes) == 2
    assert history["val_loss"].min() < 0.3
    assert model.network.output_shape == (None, 1)
    before = state_of(models.load_model(model_folder).backbone)
    assert moved(before, state_of(model.backbone)) == set()
    store = datasets.from_catalog(
        [read_fit(labelled / "galaxies.parquet")["val"].table], ["bright"], model.about["image"]
    )
    ((pixels, truth),) = datasets.central_batches(store, model.about["training"]["augmentation"], 64)
    given = model.network.predict_on_batch(pixels)
    accuracy = ((given[:, 0] > 0.5) == (truth[:, 0].numpy() > 0.5)).mean()
    assert accuracy == pytest.approx(history["val_accuracy"][history["val_loss"].idxmin()], abs=1e-6)


def test_features_are_twenty_times_faster_than_the_backbone():
    """32 galaxies through a frozen EfficientNetB0, at the paper's 224 px, and 256 features through a head."""
    backbone = build_backbone("EfficientNetB0", 224, 1)
    numbers = np.random.default_rng(0)
    images = numbers.uniform(0, 255, (32, 224, 224, 1)).astype("float32")
    features = numbers.uniform(0, 1, (256, *backbone.output_shape[1:])).astype("float32")
    labels = (np.arange(256) % 2).astype("float32")[:, None]
    head = labels_head(backbone.output_shape[-1], [BRIGHT], {}, [64], 0.5)
    network = models.join(backbone, head)
    backbone.trainable = False
    seconds = {}
    for name, part, inputs, epochs in (
        ("backbone", network, images, 1),
        ("features", keras.Model(head.inputs, head.outputs), features, 20),
    ):
        part.compile("adam", LabelsLoss([BRIGHT]), jit_compile=False)
        part.fit(inputs[:32], labels[:32], batch_size=32, verbose=0)
        began = time.perf_counter()
        part.fit(inputs, labels[: len(inputs)], batch_size=32, epochs=epochs, verbose=0)
        seconds[name] = (time.perf_counter() - began) / epochs / len(inputs)
    assert seconds["backbone"] > 20 * seconds["features"]


def test_from_scratch_the_weights_of_the_backbone_are_forgotten(
    labelled, model_folder, tmp_path, stages_seen
):
    model, _ = run_finetuning(labelled, model_folder, tmp_path, scratch=True, epochs=1)
    assert stages_seen == [(sorted([*CONVOLUTIONS, *NORMS]), NORMS, True)]
    old, new = (
        state_of(models.load_model(f).backbone)["Conv2D0", "weights"][0] for f in (model_folder, tmp_path)
    )
    assert abs(np.corrcoef(old.ravel(), new.ravel())[0, 1]) < 0.5
    assert blocks_of(model.backbone) == blocks_of(models.load_model(model_folder).backbone)


@pytest.mark.parametrize(
    ("labels", "values", "kind", "columns", "right"),
    [
        (
            [Label("class", "multiclass", ("dim", "bright", "none"))],
            {"class": lambda b: b},
            "probabilities",
            ["class_dim", "class_bright", "class_none"],
            lambda given, b: (
                (given.argmax(axis=1) == b).mean() > 0.9 and np.allclose(given.sum(1), 1, atol=1e-5)
            ),
        ),
        (
            [Label("mag", "regression")],
            {"mag": lambda b: 20 - 3.0 * b},
            "values",
            ["mag"],
            lambda given, b: np.abs(given[:, 0] - (20 - 3 * b)).mean() < 0.8,
        ),
        (
            [Label("share", "regression", bounds=(2, 6))],
            {"share": lambda b: 2.5 + 3.0 * b},
            "values",
            ["share"],
            lambda given, b: (
                np.abs(given[:, 0] - (2.5 + 3 * b)).mean() < 0.8 and given.min() >= 2 and given.max() <= 6
            ),
        ),
        (
            [Label("mine", "votes", tree=TREE)],
            {"glow_bright": lambda b: 1 + 8 * b, "glow_dim": lambda b: 9 - 8 * b},
            "concentrations",
            ["glow_bright", "glow_dim"],
            lambda given, b: ((given[:, 0] > given[:, 1]) == b).mean() > 0.9 and given.min() >= 1,
        ),
        (
            [BRIGHT, Label("mag", "regression")],
            {"bright": lambda b: b, "mag": lambda b: 20 - 3.0 * b},
            "values",
            ["bright", "mag"],
            lambda given, b: (
                ((given[:, 0] > 0.5) == b).mean() > 0.9 and np.abs(given[:, 1] - (20 - 3 * b)).mean() < 0.8
            ),
        ),
        (
            [BRIGHT, Label("mine", "votes", tree=TREE), Label("mag", "regression")],
            {
                "bright": lambda b: b,
                "glow_bright": lambda b: 1 + 8 * b,
                "glow_dim": lambda b: 9 - 8 * b,
                "mag": lambda b: 20 - 3.0 * b,
            },
            "mixed",
            ["bright", "glow_bright", "glow_dim", "mag"],
            lambda given, b: (
                ((given[:, 0] > 0.5) == b).mean() > 0.9
                and ((given[:, 1] > given[:, 2]) == b).mean() > 0.9
                and given[:, 1:3].min() >= 1
                and np.abs(given[:, 3] - (20 - 3 * b)).mean() < 1
            ),
        ),
    ],
    ids=["multiclass", "regression", "bounded", "votes", "several", "mixed"],
)
def test_every_kind_of_label_is_learned(stored, model_folder, tmp_path, labels, values, kind, columns, right):
    folder = write_labelled(stored, tmp_path, labels, values)
    model, _ = run_finetuning(folder, model_folder, tmp_path / "model", **QUICK, batch_size=8)
    assert (model.kind, model.columns) == (kind, columns)
    assert [label["name"] for label in model.about["labels"]] == [label.name for label in labels]
    assert bool(model.about["tree"]) == (kind == "concentrations")
    table = read_fit(folder / "galaxies.parquet")["val"].table
    bright = table["id_str"].str[1:].astype(int).to_numpy() % 2
    store = datasets.from_catalog([table], [], model.about["image"])
    ((pixels, _),) = datasets.central_batches(store, model.about["training"]["augmentation"], 64)
    assert right(model.network.predict_on_batch(pixels), bright)


class Seen(Exception):
    """The identity of a finetuning that would begin now."""


@pytest.fixture
def identity_of(model_folder, tmp_path, monkeypatch):
    """A function: the identity of a finetuning, which is not trained."""

    def seen(job, identity, learn):
        raise Seen(hash_of(identity))

    def identity(labelled, **changes):
        with pytest.raises(Seen) as found:
            run_finetuning(labelled, model_folder, tmp_path, **changes)
        return str(found.value)

    monkeypatch.setattr(fitting, "run_training", seen)
    return identity


def with_digests(labelled, folder, digests):
    """The galaxies of a task with another column, a digest of the pixels of each image."""
    table = pq.read_table(labelled / "galaxies.parquet")
    folder.mkdir()
    pq.write_table(table.append_column("pixels", pa.array(digests)), folder / "galaxies.parquet")
    return folder


def test_other_pixels_under_an_unchanged_table_are_another_finetuning(labelled, tmp_path, identity_of):
    digests = [f"{number:064x}" for number in range(52)]
    first, same, other, changed = (
        identity_of(with_digests(labelled, tmp_path / name, values))
        for name, values in {
            "first": digests,
            "same": digests,
            "train": ["0" * 63 + "f", *digests[1:]],
            "val": [*digests[:-1], "f" * 64],
        }.items()
    )
    assert first == same
    assert len({first, other, changed}) == 3


def test_replaced_images_of_a_zip_are_learned_from_scratch(model_folder, tmp_path, monkeypatch):
    """The names, the table and the time of the zip stay as they were; on a cluster the model was kept."""
    task, trained, fit = Task(tmp_path), [], fitting.fit
    table = task.galaxies.assign(bright=[0, 1] * 30)

    def built(first):
        with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
            for number, name in enumerate(table["id_str"], start=first):
                archive.writestr(f"{name}.png", picture(number))
        os.utime(tmp_path / "images.zip", (1e9, 1e9))
        return task.build([BRIGHT], table, archives=[str(tmp_path / "images.zip")], images=None)

    def learn():
        for name in ("model.keras", "model.json", "history.csv"):
            (tmp_path / "model" / name).unlink(missing_ok=True)
        run_finetuning(task.out, model_folder, tmp_path / "model", augment=False, epochs=1)

    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(fitting, "fit", lambda *given, **more: trained.append(1) or fit(*given, **more))
    built(0)
    learn()
    built(0)
    learn()
    assert len(trained) == 1
    built(100)
    learn()
    assert len(trained) == 2
    # Replaced after the galaxies were listed: what is learned from is what was listed, or nothing.
    galaxies = (task.out / "galaxies.parquet").read_bytes()
    built(0)
    (task.out / "galaxies.parquet").write_bytes(galaxies)
    shutil.rmtree(tmp_path / "model")
    with pytest.raises(UserError, match="images.zip: J0.*.png: has other pixels than when the galaxies were"):
        learn()


def test_galaxies_that_a_finetuning_does_not_see_do_not_change_it(labelled, tmp_path, identity_of):
    table = pq.read_table(labelled / "galaxies.parquet")
    test = pa.Table.from_pylist(
        [{**table.slice(0, 1).to_pylist()[0], "id_str": "new", "part": 2}], table.schema
    )
    (tmp_path / "more").mkdir()
    pq.write_table(pa.concat_tables([table, test]), tmp_path / "more/galaxies.parquet")
    assert identity_of(tmp_path / "more") == identity_of(labelled)


def test_other_stages_of_the_same_strategy_are_another_finetuning(labelled, monkeypatch, identity_of):
    own = {"strategy": "finetuned.LastBlockFast"}
    first = identity_of(labelled, **own)
    monkeypatch.setattr(finetuned.LastBlockFast.__init__, "__defaults__", (20,))
    assert identity_of(labelled, **own) != first


def test_another_name_of_a_task_changes_no_weight(labelled, model_folder, tmp_path):
    changes = {"augment": False, "epochs": 2}
    one, other = (
        run_finetuning(labelled, model_folder, tmp_path / name, name=name, **changes)[0].network
        for name in ("bright", "renamed")
    )
    for before, after in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


def test_the_recommended_head_survives_a_second_finetuning(labelled, model_folder, tmp_path):
    """Keras reads its scaling without our code, `model.json` says what it is, and a new head replaces it."""
    quick = {"augment": None, "epochs": 2, "batch_size": None, "head": complete_head("recommended")}
    first, _ = run_finetuning(labelled, model_folder, tmp_path / "first", **quick)
    training = first.about["training"]
    assert training["head"] == {"recipe": "recommended", "units": [64], "dropout": 0.3, "probed": True}
    assert training["batch_size"] == 5
    assert [layer.name for layer in first.head.layers].count("scaled") == 1
    second, _ = run_finetuning(labelled, tmp_path / "first", tmp_path / "second", **quick)
    for one, other in zip(first.network.get_weights(), second.network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    from_scratch, _ = run_finetuning(labelled, model_folder, tmp_path / "scratch", scratch=True, **quick)
    assert "scaled" not in [layer.name for layer in from_scratch.head.layers]


def test_the_recommended_head_stays_its_linear_probe_where_no_epoch_is_better(
    stored, model_folder, tmp_path, caplog
):
    caplog.set_level("INFO", "zoolib")
    labelled = write_labelled(
        stored, tmp_path / "labels", [BRIGHT], {"bright": lambda b: np.arange(len(b)) // 2 % 2}
    )
    harmful = {"augment": None, "epochs": 2, "learning_rate": 30.0, "head": complete_head("recommended")}
    model, history = run_finetuning(labelled, model_folder, tmp_path / "model", **harmful)
    assert "No epoch was better than the linear probe that training began with" in caplog.text
    assert "galaxies decide when the training stops, so it may stop too early" in caplog.text
    assert model.about["scores"]["val_loss"] < history["val_loss"].min()
    table = pd.read_parquet(labelled / "galaxies.parquet").query("part == 0")
    store = datasets.from_catalog([table], ["bright"], model.about["image"])
    features, values = features_of_store(model.backbone, store, augmentation_of(model.about))
    probe = fit_probe(features, [BRIGHT], pd.DataFrame(values, columns=["bright"]), "here")
    np.testing.assert_allclose(model.head(features).numpy(), probe(features), atol=1e-3)


def test_each_count_of_labels_has_a_seed_of_its_own(labelled, model_folder, tmp_path, monkeypatch):
    def seen(job, identity, learn):
        raise Seen(identity["seed"])

    def seed_of(folder, **changes):
        with pytest.raises(Seen) as found:
            run_finetuning(folder, model_folder, tmp_path / "model", **changes)
        return found.value.args[0]

    monkeypatch.setattr(fitting, "run_training", seen)
    fits = ["bright", *(f"bright/labels{count}-{seed}-scratch" for count in (8, 12) for seed in (0, 1))]
    assert len({seed_of(labelled, name=fit) for fit in fits}) == len(fits)
    assert seed_of(labelled, name="renamed/labels8-1-scratch") == seed_of(labelled, name=fits[2])
    # Other folders, and settings that are compared, leave the first weights and the order as they are.
    assert seed_of(labelled, patience=3) == seed_of(labelled)
    table = pq.read_table(labelled / "galaxies.parquet").to_pandas()
    for name, changed in {
        "moved": table.assign(archive="elsewhere.zip"),
        "labels": table.assign(bright=1 - table["bright"]),
    }.items():
        catalog = read_catalog(labelled / "galaxies.parquet")
        write_catalog(Catalog(changed, catalog.columns, None, catalog.about), tmp_path / f"{name}.parquet")
        (tmp_path / name).mkdir()
        (tmp_path / f"{name}.parquet").rename(tmp_path / name / "galaxies.parquet")
    monkeypatch.setattr("zoolib.finetune.warn_of_grey", lambda *given: False)
    assert seed_of(tmp_path / "moved") == seed_of(labelled) != seed_of(tmp_path / "labels")


def test_repeated_galaxies_are_seen_more_often(stored, model_folder, tmp_path):
    few = {"bright": lambda b: np.arange(len(b)) < 8}
    folder = write_labelled(stored, tmp_path, [BRIGHT], few, balance="repeat")
    assert read_fit(folder / "galaxies.parquet")["train"].table["repeats"].sum() == 32 * 1 + 8 * 4
    model, _ = run_finetuning(folder, model_folder, tmp_path / "model", epochs=1)
    assert model.about["training"]["galaxies"] == 40


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"bright": lambda b: 0 * b}, "all 40 galaxies have bright = 0, expected both 0 and 1"),
    ],
)
def test_labels_that_cannot_be_learned_end_with_a_message(stored, model_folder, tmp_path, labels, message):
    folder = write_labelled(stored, tmp_path, [BRIGHT], labels)
    with pytest.raises(UserError, match=message):
        run_finetuning(folder, model_folder, tmp_path / "model")


def test_a_warm_up_as_long_as_the_training_ends_with_a_message(labelled, model_folder, tmp_path):
    with pytest.raises(UserError, match="warmup_epochs is 3, but the training has only 3 epochs"):
        run_finetuning(labelled, model_folder, tmp_path, warmup_epochs=3)
    shutil.rmtree(tmp_path)


def test_features_are_those_of_the_backbone_after_the_stage_before(labelled, model_folder, tmp_path):
    strategy = "finetuned.HeadAfterAll"
    _, history = run_finetuning(labelled, model_folder, tmp_path, strategy=strategy, augment=False)
    # The head hardly moves: its loss is the loss of the complete network after the second stage.
    assert history["val_loss"][2] == pytest.approx(history["val_loss"][1], rel=0.01)
