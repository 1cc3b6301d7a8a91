"""Weights move by path and shape, and the result names every one."""

import keras
import numpy as np
import pytest

from tests.support.models import Subclassed, tiny
from trainer.errors import UserError
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
    assert found.value_counts == (size, sum(value.size for value in before.values()))
    assert found.summary() == (
        f"5 of 7 tensors are loaded, {size} of {size + 45} values; new: dense/kernel, "
        "dense/bias; left in the source: dense/kernel, dense/bias"
    )
    kinds = [line.split("\t")[0] for line in found.table().splitlines()]
    assert kinds == ["loaded"] * 5 + ["new"] * 2 + ["left"] * 2


def test_a_source_of_which_little_fits_is_noticed():
    source, model = values(model_of(5, 0)), model_of(7, 1)
    assert not transfer(model, source).mostly_new
    del source["conv2d/kernel"], source["batch_normalization/gamma"]
    assert transfer(model, source).mostly_new


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


def subclassed(classes, seed, kind=Subclassed):
    keras.utils.set_random_seed(seed)
    inputs = keras.Input((8, 8, 3))
    return keras.Model(inputs, kind(classes)(inputs))


def test_the_logits_of_a_subclassed_model_stay_new_whatever_its_order_of_layers():
    found = transfer(subclassed(5, 1), values(subclassed(5, 0)), with_head=False)
    assert list(found.new) == ["subclassed/dense/kernel", "subclassed/dense/bias"]
    assert found.backbone
    dense = {path: value for path, value in values(subclassed(5, 0)).items() if "dense" in path}
    assert not transfer(subclassed(5, 1), dense).backbone


def test_logits_of_an_unknown_layer_are_refused_if_they_are_of_other_classes():
    class Spread(Subclassed):
        def call(self, x, training=False):
            return keras.ops.mean(x, axis=(1, 2, 3))[:, None] * keras.ops.ones((1, 5))

    model, source = subclassed(5, 1, Spread), values(subclassed(5, 0))
    with pytest.raises(UserError, match="not known which layer of --model computes the logits"):
        transfer(model, source, with_head=False)
    transfer(model, source)
