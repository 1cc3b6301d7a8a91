"""Size, shape and initial weights of the wide ResNet."""

import keras
import numpy as np
import pytest

from trainer.nn.models.wide_resnet import wide_resnet


def closed_form(depth, width, channels, classes):
    """Returns the trainable parameters, from table 1 of Zagoruyko & Komodakis 2016."""
    blocks = (depth - 4) // 6
    total, entering = 9 * channels * 16, 16
    for leaving in (16 * width, 32 * width, 64 * width):
        for block in range(blocks):
            inside = entering if block == 0 else leaving
            total += 2 * inside + 9 * inside * leaving  # norm, convolution
            total += 2 * leaving + 9 * leaving * leaving
        if entering != leaving:
            total += entering * leaving  # the 1×1 shortcut
        entering = leaving
    return total + 2 * entering + (entering + 1) * classes


@pytest.mark.parametrize(
    ("depth", "width", "image_shape", "millions"),
    [(16, 4, (32, 32, 3), 2.7), (28, 10, (32, 32, 3), 36.5), (10, 1, (28, 28, 1), None)],
)
def test_the_number_of_parameters_is_the_published_one(depth, width, image_shape, millions):
    model = wide_resnet(depth, width, image_shape, 10)
    trainable = sum(int(np.prod(weight.shape)) for weight in model.trainable_weights)
    assert trainable == closed_form(depth, width, image_shape[-1], 10)
    if millions:
        assert round(trainable / 1e6, 1) == millions
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    shortcuts = [layer for layer in convolutions if layer.kernel_size == (1, 1)]
    assert len(convolutions) - len(shortcuts) == depth - 3  # depth includes the three shortcuts
    assert len(shortcuts) == (2 if width == 1 else 3)
    assert model.output_shape == (None, 10)
    assert model.get_layer("last_relu").output.shape[1:3] == (
        image_shape[0] // 4,
        image_shape[1] // 4,
    )


def test_convolutions_start_as_he_normal_over_fan_out():
    keras.utils.set_random_seed(0)
    kernel = wide_resnet(16, 4, (32, 32, 3), 10).get_layer("group3_block1_conv1").kernel.numpy()
    assert kernel.shape == (3, 3, 128, 256)
    assert kernel.std() == pytest.approx((2 / (9 * 256)) ** 0.5, rel=0.01)
    assert np.abs(kernel).max() > 3 * kernel.std()  # It is not truncated at two.


def test_logits_are_float32_under_mixed_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = wide_resnet(10, 1, (8, 8, 1), 3)
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.output.dtype == "float32"
    assert model.get_layer("group1_block1_conv1").compute_dtype == "bfloat16"
