"""The regression on pixels against scikit-learn, with votes repeated one by one."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from zoolib.config.trees import DecisionTree
from zoolib.simulation.pixels import grey_pixels, pixel_concentrations, pixel_labels


def test_pixel_labels_are_a_regression_on_standardised_pixels():
    rng = np.random.default_rng(0)
    pixels = rng.normal(size=(300, 6))
    labels = (pixels[:, 0] + rng.normal(size=300) > 0).astype(int)
    standard = (pixels - pixels.mean(0)) / pixels.std(0)
    # Two opposite sets of coefficients, half the difference each, have half of its squares.
    oracle = LogisticRegression(C=1 / (0.1 * 300), tol=1e-8).fit(standard, labels)
    found = pixel_labels(pixels, labels, pixels, penalty=0.1)
    assert np.allclose(found, oracle.predict_proba(standard)[:, 1], atol=1e-3)


@pytest.mark.parametrize("answers", [2, 3])
def test_votes_are_so_many_galaxies(answers):
    rng = np.random.default_rng(1)
    tree = DecisionTree.from_dict({"name": "one", "questions": {"q": {"answers": list("abc")[:answers]}}})
    pixels = rng.normal(size=(200, 4))
    odds = np.exp(pixels[:, :answers])
    votes = np.array([rng.multinomial(rng.integers(1, 9), p) for p in odds / odds.sum(1, keepdims=True)])
    repeated = np.repeat(np.repeat(pixels, answers, axis=0), votes.ravel(), axis=0)
    given = np.repeat(np.tile(range(answers), 200), votes.ravel())
    # As in the fit: one row for each answer that a galaxy got.
    rows = pixels[np.nonzero(votes)[0]]
    middle, spread = rows.mean(0), rows.std(0)
    penalty = 0.1 if answers == 2 else 0.2
    oracle = LogisticRegression(C=1 / (penalty * len(given)), tol=1e-8).fit(
        (repeated - middle) / spread, given
    )
    found = pixel_concentrations(tree, pixels, votes, pixels, penalty=0.1)
    shares = found / found.sum(1, keepdims=True)
    assert np.allclose(shares, oracle.predict_proba((pixels - middle) / spread), atol=1e-3)


def test_an_answer_that_nobody_gave_is_nearly_impossible():
    tree = DecisionTree.from_dict({"name": "one", "questions": {"q": {"answers": ["a", "b", "c"]}}})
    rng = np.random.default_rng(2)
    pixels, votes = rng.normal(size=(50, 4)), rng.integers(1, 9, (50, 3)) * [1, 0, 1]
    found = pixel_concentrations(tree, pixels, votes, pixels)
    assert (found > 0).all()
    assert (found[:, 1] < 0.05 * found.sum(1)).all()
    # Nobody was asked at all.
    assert (pixel_concentrations(tree, pixels, 0 * votes, pixels) == 1).all()


def test_grey_pixels_are_means_of_blocks():
    images = np.arange(2 * 34 * 32 * 3).reshape(2, 34, 32, 3)
    found = grey_pixels(images).reshape(2, 16, 16)
    assert found[0, 0, 0] == images[0, 1:3, 0:2].mean()
    assert found[1, 15, 15] == images[1, 31:33, 30:32].mean()
