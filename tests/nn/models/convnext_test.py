"""ConvNeXt of keras.applications: it trains, and its blocks are groups of --layer_decay."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.nn import layer_groups
from trainer.nn.layer_paths import layer_paths
from trainer.nn.losses import TrainingLoss
from trainer.nn.models.registry import GhostNorm, ImageFormat, build
from trainer.training.gradients import GradientFunction


@pytest.fixture(scope="module")
def model():
    images = ImageFormat((32, 32, 3), [120.0] * 3, [60.0] * 3)
    return build("ConvNeXtTiny", images, 4, GhostNorm(8, 0.99, "fused"), seed=0)


def test_it_trains_on_small_images(model):
    function = GradientFunction(model, loss=TrainingLoss(), seed=0, order_version=2)
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    labels = tf.constant(np.arange(8) % 4, tf.int64)
    losses = []
    for _ in range(3):
        sums = function(tf.constant(images), labels, tf.constant(0, tf.int64))
        losses.append(float(sums.loss) / 8)
        for parameter, gradient in zip(function.parameters, sums.gradients, strict=True):
            parameter.assign_sub(0.01 * gradient)
    assert losses[0] > losses[1] > losses[2]
    scales = [w for w in model.trainable_variables if "layer_scale" in w.path]
    assert len(scales) == 18
    assert all(np.any(keras.ops.convert_to_numpy(w) != np.float32(1e-6)) for w in scales)


def test_blocks_are_groups_of_layer_decay(model):
    groups = layer_groups.group(list(layer_paths(model)))
    names = {group[0].partition("_block_")[0] for group in groups}
    assert len(groups) == 24
    assert {f"convnext_tiny_stage_{stage}" for stage in range(4)} <= names
