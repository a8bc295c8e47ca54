"""Mixtures of Dirichlets from training to scores: `train.head: dirichlet_mixture`."""

import json
import shutil
from types import SimpleNamespace

import h5py
import keras
import numpy as np
import pandas as pd
import pytest
from finetuned import BRIGHT, run_finetuning, write_labelled
from scipy.special import logsumexp
from scipy.stats import dirichlet_multinomial
from stored import IMAGE, SETTINGS, TREE, files, train_member
from zoolib import predict, train
from zoolib.evaluate import evaluate
from zoolib.job.logs import UserError
from zoolib.learning import models
from zoolib.posteriors.files import describe_posteriors, open_predictions

HEAD = {"head": "dirichlet_mixture", "components": 2}


@pytest.fixture(scope="module")
def mixture(stored, tmp_path_factory):
    """A model folder: two Dirichlets a question, trained for three epochs."""
    folder = tmp_path_factory.mktemp("mixture")
    train_member(stored, folder, epochs=3, **HEAD)
    return folder


def predicted(galaxies, folders, out, samples=3, views=0):
    """Predict; returns the path of the file, its concentrations and its weights."""
    output = SimpleNamespace(predictions=out / "p.hdf5", rejected=out / "p.csv")
    predict.predict_chunk(galaxies, folders, (0, 1), samples, views, seed=3, output=output)
    with h5py.File(output.predictions) as file:
        return output.predictions, file["predictions"][:].astype(float), file["weights"][:].astype(float)


def test_a_mixture_learns_and_says_what_it_is(mixture):
    history = pd.read_csv(mixture / "history.csv")
    assert history["loss"].iloc[-1] < history["loss"].iloc[0]
    np.testing.assert_allclose(history["loss"], history["loss_a"] + history["loss_b"], rtol=0.4)
    model = models.load_model(mixture)
    assert (model.kind, model.components, model.columns) == ("mixtures", 2, TREE.columns)
    assert model.about["training"]["head"] == "dirichlet_mixture"


def test_a_mixture_goes_on_with_its_own_head_alone(mixture, model_folder):
    start = {**SETTINGS, "start_from": str(mixture)}
    assert train.build_network(TREE, IMAGE, {**start, **HEAD}).count_params()
    with pytest.raises(UserError, match="train.head is dirichlet, but .* has dirichlet_mixture; set train"):
        train.build_network(TREE, IMAGE, start)
    with pytest.raises(UserError, match="train.components is 3, but .* has 2; set train.components"):
        train.build_network(TREE, IMAGE, {**start, **HEAD, "components": 3})
    with pytest.raises(UserError, match="train.head is dirichlet_mixture, but .* has dirichlet; set train"):
        train.build_network(TREE, IMAGE, {**SETTINGS, **HEAD, "start_from": str(model_folder)})


def test_components_of_a_sample_are_neighbours_in_files(stored, mixture, tmp_path):
    trained = models.load_model(mixture)
    # Without dropout all samples are what the network says.
    head = models.tree_head(trained.backbone.output_shape[-1], TREE, 0.0, *HEAD.values())
    head.set_weights(trained.head.get_weights())
    network = models.join(trained.backbone, head)
    models.save_model(network, trained.about, tmp_path / "model.keras", tmp_path / "model.json")
    _, values, weights = predicted(files(stored, "val")[1], [tmp_path, tmp_path], tmp_path)
    assert (values.shape, weights.shape) == ((12, 4, 2 * 3 * 2), (12, 2, 2 * 3 * 2))
    store, _ = train.open_store(*files(stored, "val"), TREE, IMAGE)
    pixels = np.concatenate(
        [batch[0] for batch in predict.datasets.central_batches(store, SETTINGS["augmentation"], 12)]
    )
    expected = models.split_mixtures(keras.ops.convert_to_numpy(network(pixels)), TREE, 2)
    for found, one in ((values, expected[0]), (weights * 6, expected[1])):
        np.testing.assert_allclose(found, np.tile(one, 6), rtol=1e-4)
    assert np.abs(values[:, :, 0] / values[:, :, 1] - 1).min() > 0.1


@pytest.fixture(scope="module")
def chain(stored, mixture, tmp_path_factory):
    """Predictions and scores of galaxies of which the model does not say that it has learned from them."""
    folder = tmp_path_factory.mktemp("chain")
    unmarked = folder / "model"
    shutil.copytree(mixture, unmarked)
    about = json.loads((unmarked / "model.json").read_text())
    for key in ("learned_from", "checksums"):
        del about[key]
    (unmarked / "model.json").write_text(json.dumps(about))
    catalog = stored / "train.parquet"
    path, values, weights = predicted([str(catalog)], [unmarked], folder, samples=4)
    names = {"scores": "csv", "losses": "csv", "confusion": "csv", "metrics": "json"}
    output = SimpleNamespace(**{name: folder / f"{name}.{suffix}" for name, suffix in names.items()})
    evaluate(path, catalog, stored / "val.parquet", 5, 0.8, output)
    return SimpleNamespace(
        folder=unmarked,
        path=path,
        values=values,
        weights=weights,
        table=pd.read_parquet(catalog),
        losses=pd.read_csv(output.losses).set_index("question")["model"],
    )


def test_the_loss_of_predictions_is_that_of_their_mixture(chain):
    np.testing.assert_allclose(chain.weights.reshape(40, 2, 4, 2).sum(axis=3), 1 / 4, rtol=1e-5)
    votes = chain.table[TREE.columns].to_numpy(int)
    total = 0
    for number, question in enumerate(TREE.questions):
        counted = votes[:, question.slice]
        each = [
            dirichlet_multinomial.logpmf(
                counted, chain.values[:, question.slice, component], counted.sum(axis=1)
            )
            for component in range(8)
        ]
        expected = -logsumexp(np.transpose(each), b=chain.weights[:, number], axis=1).mean()
        assert chain.losses[question.name] == pytest.approx(expected, rel=1e-4)
        total += expected
    assert chain.losses["total"] == pytest.approx(total, rel=1e-4)


def test_python_users_get_the_flat_catalogue_of_a_mixture(chain, tmp_path):
    with open_predictions(chain.path) as opened:
        assert (opened.kind, opened.per_sample) == ("concentrations", 2)
    describe_posteriors(chain.path, tmp_path / "flat.parquet", 0.9)
    expected = pd.read_parquet(tmp_path / "flat.parquet").set_index("id_str")
    found = predict.load(chain.folder).predict(list(chain.table["file_loc"]), samples=4, seed=3)
    # There, names are those of the images.
    found = found.assign(id_str="J" + found["id_str"]).set_index("id_str")
    columns = [name for name in found if name in expected]
    assert {"a_x_fraction", "a_x_low", "a_x_high", "b_u_hd_low", "b_entropy"} <= set(columns)
    pd.testing.assert_frame_equal(found[columns], expected[columns], rtol=1e-3, atol=1e-4)
    shares = chain.values[:, :2] / chain.values[:, :2].sum(axis=1, keepdims=True)
    means = (shares * chain.weights[:, :1]).sum(axis=2)
    np.testing.assert_allclose(found[["a_x_fraction", "a_y_fraction"]], means, rtol=1e-4)


def test_an_ensemble_of_other_heads_is_a_message(stored, mixture, model_folder, tmp_path):
    train_member(stored, tmp_path, epochs=1, head="dirichlet_mixture", components=3)
    for other, found in (
        (tmp_path, r"mixtures \(3 a sample\)"),
        (model_folder, r"concentrations \(1 a sample"),
    ):
        with pytest.raises(
            UserError, match=f"predicts {found}.* expected the same train.head and train.comp"
        ):
            predict.load(mixture, other)


def test_a_model_that_does_not_say_its_components_is_a_message(mixture, tmp_path):
    shutil.copytree(mixture, tmp_path, dirs_exist_ok=True)
    about = json.loads((tmp_path / "model.json").read_text())
    del about["training"]["components"]
    (tmp_path / "model.json").write_text(json.dumps(about))
    with pytest.raises(UserError, match="model.json: cannot be read .has no 'training.components'"):
        models.load_model(tmp_path)


def test_the_backbone_of_a_mixture_is_finetuned(stored, mixture, tmp_path):
    labelled = write_labelled(stored, tmp_path, [BRIGHT], {"bright": lambda bright: bright})
    model, history = run_finetuning(labelled, mixture, tmp_path, epochs=1)
    assert (model.kind, model.components, len(history)) == ("probabilities", 1, 1)
    described = predict.load(tmp_path).predict(stored / "3.png", samples=2)
    assert 0 <= described["bright"].iloc[0] <= 1
