"""Galaxies that no model was trained on, with their own predictions."""

import h5py
import numpy as np
import pandas as pd
import pytest
from drawn import duplicated, some_shares, some_survey, weigh
from zoolib.job.logs import UserError
from zoolib.posteriors.summary import mean_fractions
from zoolib.scores.held_out import held_out


def test_held_out_galaxies_have_their_own_predictions(tmp_path, tree):
    survey = some_survey(tmp_path, tree, 400)
    held = held_out(*survey.files, min_votes=40)
    enough = survey.votes[:, :3].sum(axis=1) >= 40
    assert 100 < len(held.votes) == enough.sum() < 400
    np.testing.assert_array_equal(held.votes, survey.votes[enough])
    np.testing.assert_allclose(held.values, survey.values[enough])
    assert held.members == 2
    edge_on = held.question("disk-edge-on")
    asked = held.votes[:, edge_on.slice].sum(axis=1)
    volunteers = held.votes[:, :3].sum(axis=1)
    np.testing.assert_array_equal(held.relevant(edge_on), (asked > 0.5 * volunteers) & (asked > 0))
    old = held_out(*survey.files, min_votes=40, rule="asked").relevant(edge_on)
    np.testing.assert_array_equal(old, asked >= 0.5 * volunteers)
    assert (old != held.relevant(edge_on)).any()
    with pytest.raises(UserError, match="none of its 400 galaxies is in"):
        other = pd.read_parquet(survey.files[1]).assign(id_str="x")
        other.to_parquet(survey.files[1].with_name("other.parquet"))
        held_out(survey.files[0], survey.files[1].with_name("other.parquet"), 0)


def test_held_out_galaxies_have_their_own_weights(tmp_path, tree):
    survey = some_survey(tmp_path, tree, 60)
    shares = some_shares(60, tree)
    # The six components are two samples of three.
    weights = np.concatenate([shares, shares[:, :, ::-1]], axis=2) / 2
    with h5py.File(survey.files[0]) as file:
        order = [int(name[1:]) for name in file["id_str"].asstr()]
    weigh(survey.files[0], weights[order])
    held = held_out(*survey.files, min_votes=40)
    enough = survey.votes[:, :3].sum(axis=1) >= 40
    np.testing.assert_allclose(held.weights, weights[enough], rtol=1e-6)
    assert held.per_sample == 3
    bar = held.question("bar")
    np.testing.assert_array_equal(held.shares(bar), held.weights[:, tree.questions.index(bar)])
    expected = mean_fractions(duplicated(survey.values, tree, weights, 40), tree)
    np.testing.assert_allclose(held.fractions, expected[enough], rtol=1e-6)
