"""Which galaxies a model has learned from, over chains of models."""

import json

from zoolib.data.learned import BACKBONE, NEITHER, OWN, UNKNOWN, Learned, learned_from


def about(*arguments, **settings):
    """`model.json` as it is read again."""
    return json.loads(json.dumps({"learned_from": learned_from(*arguments, **settings)}))


def test_a_model_knows_its_galaxies_and_those_of_its_backbone():
    votes = about(["a", "b", "b"])
    assert votes["learned_from"]["galaxies"] == 2
    assert list(Learned(votes).codes(["a", "c", "b"])) == [OWN, NEITHER, OWN]
    rings = about(["c"], votes)
    assert list(Learned(rings).codes(["a", "c", "d"])) == [BACKBONE, OWN, NEITHER]
    bars = about(["a"], rings)
    assert list(Learned(bars).codes("abcd")) == [OWN, BACKBONE, BACKBONE, NEITHER]
    more = about(["d"], rings, goes_on=True)
    assert list(Learned(more).codes("abcde")) == [BACKBONE, BACKBONE, OWN, OWN, NEITHER]


def test_what_a_model_does_not_say_is_unknown():
    old = {"training": {}}
    assert list(Learned(old).codes(["a"])) == [UNKNOWN]
    assert list(Learned(about(["a"], old)).codes("ab")) == [OWN, NEITHER]
    assert list(Learned(about(["a"], old, goes_on=True)).codes("ab")) == [UNKNOWN, UNKNOWN]


def test_the_size_is_eight_bytes_a_galaxy():
    ids = [f"J{number:06d}" for number in range(20_000)]
    assert len(json.dumps(about(ids))) < 11 * len(ids)
    assert (Learned(about(ids)).codes(ids) == OWN).all()
    others = [f"K{number:06d}" for number in range(20_000)]
    assert (Learned(about(ids)).codes(others) == NEITHER).all()
