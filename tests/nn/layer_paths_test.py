"""Paths of layers and weights do not depend on what was built before."""

import keras

from tests.support.models import tiny
from trainer.nn.ghostify import ghostify
from trainer.nn.layer_paths import layer_paths, weight_paths

TINY = ["conv2d", "batch_normalization", "dense"]


def test_numbers_start_again_in_each_model():
    for _ in range(2):
        keras.layers.Dense(3)
        model = tiny((28, 28, 1), 5)
        assert list(layer_paths(model)) == TINY
        ghostify(model, ghost_batch_size=2, decay=0.9, kernel="fused")
        assert list(layer_paths(model)) == TINY


def test_paths_follow_the_model_s_weights():
    inputs = keras.Input((4,))
    x = keras.layers.Dense(3, name="block_7")(inputs)
    x = keras.layers.BatchNormalization()(x)
    x = keras.layers.BatchNormalization()(x)
    inner = keras.Sequential([keras.layers.Dense(3), keras.layers.Dense(2)], name="inner")
    model = keras.Model(inputs, inner(x))
    found = weight_paths(model)
    assert [id(variable) for variable in found.values()] == [id(v) for v in model.weights]
    assert list(layer_paths(model)) == [
        *("block_7", "batch_normalization", "batch_normalization_1"),
        *("dense", "dense_1"),
    ]
    assert list(found)[:3] == ["block_7/kernel", "block_7/bias", "batch_normalization/gamma"]


def test_equal_names_stay_apart():
    class Twice(keras.Model):
        def __init__(self):
            super().__init__()
            self.parts = [keras.layers.Dense(2, name="same"), keras.layers.Dense(2, name="same")]

        def call(self, x):
            return self.parts[1](self.parts[0](x))

    model = Twice()
    model(keras.ops.ones((1, 2)))
    paths = list(weight_paths(model))
    assert len(paths) == len({*paths}) == 4
    assert paths[2].endswith("same#2/kernel")
    assert len(layer_paths(model)) == 2


def test_equal_names_in_two_containers_stay_apart():
    blocks = [
        keras.Sequential([keras.layers.Dense(3, name="same")], name=f"block{i}") for i in (1, 2)
    ]
    inputs = keras.Input((3,))
    model = keras.Model(inputs, blocks[1](blocks[0](inputs)))
    layers = layer_paths(model)
    assert list(layers) == ["same", "same#2"]
    assert list(layers.values()) == [block.layers[-1] for block in blocks]
