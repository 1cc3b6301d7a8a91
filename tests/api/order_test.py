"""trainer.shuffle: the order of a run, for positions that are integers."""

import numpy as np
import pytest

import trainer


def test_each_example_occurs_once_an_epoch():
    found = trainer.shuffle(range(20, 30), examples=10, seed=3)
    assert sorted(found) == [*range(10)]
    for positions in ([20, 21], np.array([20, 21], np.uint64), np.array([20, 21], np.int8)):
        same = trainer.shuffle(positions, examples=np.int64(10), seed=3)
        np.testing.assert_array_equal(same, found[:2])
    assert trainer.shuffle([], examples=10).tolist() == []


@pytest.mark.parametrize(
    ("positions", "examples", "seed"),
    [
        ([0.5, 1.7], 10, 0),
        (["a"], 10, 0),
        ([-1], 10, 0),
        ([2**63], 10, 0),
        ([2**70], 10, 0),
        ([[0, 1], [2]], 10, 0),
        ([[0, 1]], 10, 0),
        (3, 10, 0),
        (None, 10, 0),
        ([0], 10.5, 0),
        ([0], "3", 0),
        ([0], 0, 0),
        ([0], 2**70, 0),
        ([0], 10, 0.5),
        ([0], 10, 2**63),
    ],
)
def test_what_is_not_a_position_is_refused(positions, examples, seed):
    with pytest.raises(trainer.UserError, match=r"trainer\.shuffle cannot use positions="):
        trainer.shuffle(positions, examples=examples, seed=seed)
