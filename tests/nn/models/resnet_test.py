"""Size, initial weights and paddings of ResNet-50."""

import keras
import numpy as np
import pytest

from tests.nn.models.registry_test import make
from trainer.nn.models.resnet import resnet_50
from trainer.nn.optimizers import decays


@pytest.fixture(scope="module")
def published():
    return make("resnet_50", image_shape=(224, 224, 3), classes=1000, ghost_batch_size=1)


@pytest.fixture(scope="module")
def networks(published):
    """ResNet-50 by the side of its images."""
    keras.utils.set_random_seed(0)
    small = {side: resnet_50((side, side, 3), 10) for side in (32, 33)}
    return {**small, 224: published.layers[-1]}


@pytest.fixture(scope="module")
def model(networks):
    return networks[32]


def count(weights):
    return sum(int(np.prod(weight.shape)) for weight in weights)


def test_the_size_is_that_of_torchvisions_resnet50(published):
    model = published
    assert count(model.trainable_weights) == 25_557_032
    assert count(model.non_trainable_weights) == 53_120
    assert model.output_shape == (None, 1000)


@pytest.mark.parametrize(
    ("side", "sides"), [(32, [8, 4, 2, 1]), (33, [9, 5, 3, 2]), (224, [56, 28, 14, 7])]
)
def test_stages_halve_the_image_in_the_3x3_convolution(side, sides, networks):
    model = networks[side]
    for stage, wanted in enumerate(sides, start=1):
        block = f"stage{stage}_block1"
        assert model.get_layer(f"{block}_relu").output.shape[1:3] == (wanted, wanted)
        strides = [model.get_layer(f"{block}_conv{i}").strides for i in (1, 2, 3)]
        assert strides == [(1, 1), (1, 1) if stage == 1 else (2, 2), (1, 1)]
    count = 1 if side == 224 else 2
    images = np.random.default_rng(0).normal(size=(count, side, side, 3)).astype(np.float32)
    assert model(images, training=True).shape == (count, 1000 if side == 224 else 10)


def windows(x, size, stride, pixels, empty):
    """Returns the windows that Torch's layers see, [b, h', w', size, size, c].

    On every side, x is padded by `pixels` of value `empty`.
    """
    edges = ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0))
    x = np.pad(x, edges, constant_values=empty)
    seen = np.lib.stride_tricks.sliding_window_view(x, (size, size), axis=(1, 2))
    return np.moveaxis(seen[:, ::stride, ::stride], 3, -1)


def part(model, first, last):
    return keras.Model(model.get_layer(first).input, model.get_layer(last).output)


@pytest.mark.parametrize("side", [32, 33])
@pytest.mark.parametrize(
    ("first", "last", "scale", "channels"),
    [("stem_padding", "stem_conv", 1, 3), ("stage2_block1_padding", "stage2_block1_conv2", 4, 128)],
)
def test_strided_convolutions_are_padded_alike_on_both_sides(
    first, last, scale, channels, side, networks
):
    model = networks[side]
    pixels = -(-side // scale)  # It is even and odd.
    x = np.random.default_rng(0).normal(size=(1, pixels, pixels, channels)).astype(np.float32)
    kernel = model.get_layer(last).kernel.numpy()
    seen = windows(x, len(kernel), 2, len(kernel) // 2, 0.0)  # [1, h', w', size, size, c]
    wanted = np.einsum("bhwuvc,uvcd->bhwd", seen, kernel)
    np.testing.assert_allclose(part(model, first, last)(x), wanted, atol=1e-4)


def test_the_pooling_is_padded_alike_on_both_sides(model):
    x = np.random.default_rng(0).uniform(size=(1, 16, 16, 64)).astype(np.float32)
    wanted = windows(x, 3, 2, 1, -np.inf).max(axis=(3, 4))
    np.testing.assert_array_equal(part(model, "pool_padding", "stem_pool")(x), wanted)


def test_blocks_start_as_their_shortcuts(model):
    gammas = {v.path: v.numpy() for v in model.trainable_variables if v.name == "gamma"}
    last = [path for path in gammas if path.split("/")[-2].endswith("_3_norm")]
    assert len(last) == 16
    for path, gamma in gammas.items():
        np.testing.assert_array_equal(gamma, 0.0 if path in last else 1.0)
    images = np.random.default_rng(0).normal(size=(4, 32, 32, 3)).astype(np.float32)
    before = model(images, training=True).numpy()
    inside = [layer for layer in model.layers if layer.name.endswith(("conv1", "conv2", "conv3"))]
    assert len(inside) == 16 * 3
    for layer in inside:
        layer.kernel.assign(-layer.kernel)
    np.testing.assert_array_equal(model(images, training=True), before)


def test_kernels_start_as_in_the_papers(networks):
    model = networks[224]
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert len(convolutions) == 1 + 16 * 3 + 4
    for layer in convolutions:
        assert layer.bias is None
        fan_out = np.prod(layer.kernel_size) * layer.filters
        assert layer.kernel.numpy().std() == pytest.approx((2 / fan_out) ** 0.5, rel=0.05)
    logits = model.get_layer("logits")
    assert logits.kernel.numpy().std() == pytest.approx(0.01, rel=0.01)
    np.testing.assert_array_equal(logits.bias, 0)


def test_only_kernels_decay(model):
    decaying = [v for v in model.trainable_variables if decays(v.value)]
    assert {v.name for v in decaying} == {"kernel"}
    assert len(decaying) == 53 + 1
