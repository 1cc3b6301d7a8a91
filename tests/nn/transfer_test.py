"""Weights move by path and shape, and the result names every one."""

import keras
import numpy as np

from tests.support.models import tiny
from trainer.nn.layer_paths import weight_paths
from trainer.nn.transfer import transfer


def values(model):
    return {path: np.asarray(variable) for path, variable in weight_paths(model).items()}


def model_of(classes, seed):
    keras.utils.set_random_seed(seed)
    return tiny((28, 28, 1), classes)


def test_a_head_of_other_classes_stays_new():
    source, model = values(model_of(7, 0)), model_of(5, 1)
    before = values(model)
    found = transfer(model, source)
    assert found.new == {
        "dense/kernel": "8 × 5, and 8 × 7 in the source",
        "dense/bias": "5, and 7 in the source",
    }
    assert found.left == {"dense/kernel": "8 × 7", "dense/bias": "7"}
    assert found.backbone
    for path, value in values(model).items():
        expected = before if path in found.new else source
        np.testing.assert_array_equal(value, expected[path])
    size = sum(source[path].size for path in found.loaded)
    assert found.values == (size, sum(value.size for value in before.values()))
    assert found.summary() == (
        f"5 of 7 tensors are loaded, {size} of {size + 45} values; new: dense/kernel, "
        "dense/bias; left in the source: dense/kernel, dense/bias"
    )
    kinds = [line.split("\t")[0] for line in found.table().splitlines()]
    assert kinds == ["loaded"] * 5 + ["new"] * 2 + ["left"] * 2


def test_the_same_shape_with_other_classes_is_not_loaded():
    source, model = values(model_of(5, 0)), model_of(5, 1)
    found = transfer(model, source, with_head=False)
    assert set(found.new.values()) == {"the source's logits are of other classes"}
    assert transfer(model, source).new == {}


def test_nothing_but_a_head_is_no_backbone():
    source = {p: v for p, v in values(model_of(5, 0)).items() if "dense" in p}
    found = transfer(model_of(5, 1), source)
    assert len(found.loaded) == 2
    assert not found.backbone
