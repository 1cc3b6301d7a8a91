import subprocess
import sys

import keras
import pytest

from tests.support.models import tiny
from trainer.nn.ghostify import ghostify
from trainer.nn.model_configuration import fingerprint
from trainer.nn.models.registry import GhostNorm, ImageFormat, build

SHAPE = (8, 8, 1)


def transfer(trainable=True):
    base = keras.Sequential(
        [keras.Input(SHAPE), keras.layers.Conv2D(2, 3), keras.layers.BatchNormalization()],
        name="base",
    )
    base.trainable = trainable
    images = keras.Input(SHAPE)
    x = keras.layers.GlobalAveragePooling2D()(base(images, training=False))
    return keras.Model(images, keras.layers.Dense(5)(x))


@pytest.mark.parametrize("make", [transfer, lambda: tiny(SHAPE, 5)])
def test_a_second_build_has_the_same_fingerprint(make):
    first, second = fingerprint(make()), fingerprint(make())
    assert first == second
    assert len(first) == 64


def test_neither_earlier_builds_nor_the_image_size_change_the_fingerprint():
    def classifier(side):
        return build(
            "tests.support.models:tiny",
            ImageFormat((side, side, 1), [1.0], [1.0]),
            5,
            GhostNorm(4, 0.9, "fused"),
            seed=0,
        )

    assert len({fingerprint(classifier(side)) for side in (8, 8, 16)}) == 1


def test_an_activation_changes_the_fingerprint_but_the_kernel_does_not():
    assert fingerprint(tiny(SHAPE, 5, "relu")) != fingerprint(tiny(SHAPE, 5, "tanh"))
    kernels = ("fused", "reshaped")
    models = [ghostify(tiny(SHAPE, 5), ghost_batch_size=4, decay=0.9, kernel=k) for k in kernels]
    assert len({fingerprint(model) for model in models}) == 1


def test_an_activation_with_the_name_of_its_layer_changes_the_fingerprint():
    def net(activation):
        layers = [keras.Input((4,)), keras.layers.Activation(activation, name=activation)]
        return keras.Sequential([*layers, keras.layers.Lambda(lambda x: 2 * x)])

    assert fingerprint(net("relu")) != fingerprint(net("tanh"))


def test_the_fingerprint_is_the_same_in_another_process():
    code = (
        "from tests.support.models import tiny;"
        "from trainer.nn.model_configuration import fingerprint;"
        "print(fingerprint(tiny((8, 8, 1), 5)))"
    )
    other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == fingerprint(tiny(SHAPE, 5))


def test_a_model_without_a_configuration_has_no_fingerprint():
    class Odd(keras.Model):
        def get_config(self):
            raise NotImplementedError

    assert fingerprint(Odd()) is None
