"""A model of one size computes images of another as the model that is built for them."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.errors import UserError
from trainer.nn.models import registry, vision_transformer
from trainer.nn.models.vision_transformer import Size

GHOST = registry.GhostNorm(4, 0.9, "reshaped")


def built(name, shape, training_shapes=()):
    images = registry.ImageFormat(
        shape, [90.0] * shape[2], [60.0] * shape[2], None, training_shapes
    )
    return registry.build(name, images, 3, GHOST, seed=1)


@pytest.mark.parametrize(
    ("name", "training"),
    [
        ("plain_9", True),
        ("wide_resnet_10_1", True),
        ("tests.support.models:tiny", True),
        ("tests.support.models:tiny", False),
        ("MobileNetV2", False),
    ],
)
def test_other_sizes_compute_as_a_model_built_for_them(name, training):
    # MobileNetV2's padding depends on whether the number of rows at a stride is even.
    height, width = (64, 96) if name == "MobileNetV2" else (40, 64)
    more = [] if name == "MobileNetV2" else [(32, 32)]
    model = built(name, (64, 64, 3), [(height, width), *more, (64, 64)])
    reference = built(name, (height, width, 3))
    reference.set_weights(model.get_weights())
    images = np.random.default_rng(0).integers(0, 256, (8, height, width, 3), np.uint8)
    found, wanted = (each(images, training=training).numpy() for each in (model, reference))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=1e-4 * np.abs(wanted).max())
    assert model.input_shape == (None, 64, 64, 3)


def test_a_transformer_spreads_its_positions_over_the_image(monkeypatch):
    monkeypatch.setitem(vision_transformer.SIZES, "ti", Size(24, 3, 2))
    name, patch = "vit_ti_8", 8
    model = built(name, (64, 64, 1), [(32, 32), (128, 128)])
    model.layers[-1].get_layer("logits").kernel.assign(
        np.random.default_rng(1).normal(size=(24, 3))
    )

    def positions(size):
        """Returns what the network adds to the values of the patches of one colour."""
        network = model.layers[-1]
        embedding = network.get_layer("embedding")
        inner = keras.Model(network.inputs, network.get_layer("patches").output)
        inner.input_spec = None
        images = np.full((1, size, size, 1), 7.0, np.float32)
        count = size // patch
        return (
            (inner([images]) - tf.reshape(embedding(images), [1, -1, 24]))
            .numpy()
            .reshape(count, count, 24)
        )

    whole, half, double = positions(64), positions(32), positions(128)
    # Sines of columns come first: sin of the place of each patch's centre, in patches of 64 pixels.
    for found, scale in ((whole, 1.0), (half, 2.0), (double, 0.5)):
        centres = (np.arange(len(found)) + 0.5) * scale - 0.5
        np.testing.assert_allclose(found[0, :, 0], np.sin(centres), atol=1e-5)
        np.testing.assert_allclose(found[:, 0, 12], np.sin(centres), atol=1e-5)
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 1), np.uint8)
    assert model(images).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "shape", "sizes", "message"),
    [
        ("vgg_16", (64, 64, 3), [(64, 64), (96, 96)], r"cannot train with images of 96×96: "),
        ("VGG16", (64, 64, 3), [(96, 96)], r"cannot train with images of 96×96: "),
        (
            "vit_ti_8",
            (64, 64, 3),
            [(64, 64), (60, 60)],
            r"8×8 pixels do not divide images of 60×60",
        ),
        (
            "tests.support.models:reshaping",
            (16, 16, 3),
            [(32, 32)],
            r"cannot train with images of 32×32: from 2 images it makes shape \(8, 3\)",
        ),
        (
            "tests.support.models:asserting",
            (16, 16, 3),
            [(32, 32)],
            r"cannot train with images of 32×32: AssertionError: rows of 16 pixels only\.",
        ),
    ],
)
def test_a_model_of_fixed_size_is_refused_by_name(name, shape, sizes, message):
    with pytest.raises(UserError, match=message) as refused:
        built(name, shape, sizes)
    assert len(str(refused.value).splitlines()) <= 2


def test_without_other_sizes_the_input_is_checked_as_before():
    model = built("plain_9", (32, 32, 3), [(32, 32)])
    with pytest.raises(ValueError, match="incompatible"):
        model(np.zeros((1, 16, 16, 3), np.uint8))
