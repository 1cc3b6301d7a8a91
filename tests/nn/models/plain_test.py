"""Size, shape and initial weights of the plain networks."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.nn.models.plain import plain_9, vgg_16

# Channels of the convolutions, in order.
CHANNELS = {
    vgg_16: [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6,
    plain_9: [64] * 3 + [128] * 3 + [256] * 3,
}
SMALL = [(28, 28, 1), (32, 32, 3)]


def closed_form(channels, entering, classes):
    """Returns the trainable parameters: 3×3 kernels, two vectors for each norm, and the logits."""
    total = 0
    for leaving in channels:
        total += 9 * entering * leaving + 2 * leaving
        entering = leaving
    return total + (entering + 1) * classes


@pytest.mark.parametrize("image_shape", SMALL, ids=str)
@pytest.mark.parametrize("network", CHANNELS)
def test_parameters_and_shapes(network, image_shape):
    model = network(image_shape, 10)
    channels = CHANNELS[network]
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert trainable == closed_form(channels, image_shape[-1], 10)
    assert len(model.non_trainable_weights) == 2 * len(channels)  # moving mean and variance
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert [layer.filters for layer in convolutions] == channels
    assert all(layer.bias is None for layer in convolutions)
    images = np.random.default_rng(0).normal(size=(2, *image_shape)).astype(np.float32)
    assert model(images, training=True).shape == (2, 10)
    assert model.output_shape == (None, 10)


def test_vgg_16_has_the_published_size():
    """Compares with the 14,714,688 weights of keras.applications' VGG16 without its top.

    Here, two vectors of a norm replace each bias, which adds the number of channels, 4,224.
    """
    trainable = vgg_16((32, 32, 3), 10).trainable_weights
    convolutions = sum(int(np.prod(weight.shape)) for weight in trainable[:-2])
    assert convolutions == 14_714_688 + 4_224


@pytest.mark.parametrize(
    ("network", "side", "sides"),
    [
        (vgg_16, 28, [28, 14, 7, 4, 2]),
        (vgg_16, 32, [32, 16, 8, 4, 2]),
        (plain_9, 28, [28, 14, 7]),
        (plain_9, 32, [32, 16, 8]),
    ],
)
def test_every_stage_halves_the_image(network, side, sides):
    model = network((side, side, 3), 10)
    stages = [model.get_layer(f"stage{i + 1}_conv1").output.shape[1:3] for i in range(len(sides))]
    assert stages == [(s, s) for s in sides]


def test_vgg_16_pools_by_maximum_and_plain_9_by_mean():
    x = np.arange(16.0, dtype=np.float32).reshape(1, 4, 4, 1)
    largest = vgg_16((32, 32, 3), 10).get_layer("stage1_pool")(x)
    mean = plain_9((32, 32, 3), 10).get_layer("stage2_pool")(x)
    np.testing.assert_array_equal(np.ravel(largest), [5, 7, 13, 15])
    np.testing.assert_array_equal(np.ravel(mean), [2.5, 4.5, 10.5, 12.5])


@pytest.mark.parametrize("network", CHANNELS)
def test_convolutions_start_as_he_normal_over_fan_out(network):
    keras.utils.set_random_seed(0)
    model = network((32, 32, 3), 10)
    kernel = model.get_layer("stage3_conv2").kernel.numpy()
    assert kernel.std() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.01)
    assert np.abs(kernel).max() > 3 * kernel.std()  # It is not truncated at two.


@pytest.mark.parametrize("network", CHANNELS)
def test_logits_are_float32_under_mixed_precision(network):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = network((8, 8, 1), 3)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.output.dtype == "float32"
    assert model.get_layer("stage1_conv1").compute_dtype == "bfloat16"
    assert model(np.zeros((1, 8, 8, 1), np.float32)).dtype == tf.float32
