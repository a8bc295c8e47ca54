"""What `head` and `batch_size` of a task stand for."""

import pytest
from zoolib.config.recipes import complete_batch, complete_head


def test_heads_by_name_and_a_head_of_ones_own():
    published = {"recipe": "published", "units": [64, 64], "dropout": 0.75, "probed": False}
    assert complete_head("published") == published
    recommended = complete_head("recommended")
    assert recommended["probed"] and recommended["dropout"] < 0.5
    own = complete_head({"units": [8], "dropout": 0.1})
    assert own == {"recipe": "own", "units": [8], "dropout": 0.1, "probed": False}


@pytest.mark.parametrize(("galaxies", "size"), [(2, 4), (18, 4), (100, 12), (1000, 32)])
def test_small_sets_have_small_batches(galaxies, size):
    assert complete_batch({"batch_size": None}, galaxies) == {"batch_size": size}
    assert complete_batch({"batch_size": 7}, galaxies) == {"batch_size": 7}
