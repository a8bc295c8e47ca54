"""The constant predictor against the distribution that votes were drawn from."""

import numpy as np
from zoolib.scores import baselines


def test_constant_concentrations_find_the_dirichlet_that_votes_came_from(tree):
    rng = np.random.default_rng(0)
    true = rng.uniform(0.3, 5, len(tree.columns))
    votes = np.zeros((3000, len(true)))
    for question in tree.questions:
        shares = rng.dirichlet(true[question.slice], 3000)
        votes[:, question.slice] = rng.multinomial(rng.integers(0, 40, 3000), shares)
    found = baselines.constant_concentrations(tree, votes)
    assert np.allclose(found / true, 1, atol=0.12)
    votes[:, tree.questions[4].slice] = 0
    assert np.all(baselines.constant_concentrations(tree, votes)[tree.questions[4].slice] == 1)
