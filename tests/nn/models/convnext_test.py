"""ConvNeXt of keras.applications: it trains, and its blocks are groups of --layer_decay."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.applications import convnext

from tests.nn.models.precision_test import check_gradients
from trainer.nn import layer_groups
from trainer.nn.layer_paths import layer_paths
from trainer.nn.losses import TrainingLoss
from trainer.nn.models.registry import GhostNorm, ImageFormat, build
from trainer.training.gradients import GradientFunction


def built(depths):
    """Returns ConvNeXtTiny with few channels: XLA's depthwise gradients take long."""
    images = ImageFormat((32, 32, 3), [120.0] * 3, [60.0] * 3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(convnext.MODEL_CONFIGS["tiny"], "projection_dims", [8, 12, 16, 24])
        patch.setitem(convnext.MODEL_CONFIGS["tiny"], "depths", depths)
        return build("ConvNeXtTiny", images, 4, GhostNorm(8, 0.99, "fused"), seed=0)


def test_it_trains_on_small_images():
    model = built([1, 1, 2, 1])
    gradients = GradientFunction(model, loss=TrainingLoss(), seed=0, order_version=2)
    function = tf.function(gradients, autograph=False)
    images = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), np.uint8)
    labels = tf.constant(np.arange(8) % 4, tf.int64)
    losses = []
    for _ in range(3):
        sums = function(tf.constant(images), labels, tf.constant(0, tf.int64))
        losses.append(float(sums.loss) / 8)
        check_gradients(model, sums)
        for parameter, gradient in zip(gradients.parameters, sums.gradients, strict=True):
            parameter.assign_sub(0.01 * gradient)
    assert losses[0] > losses[1] > losses[2]
    scales = [w for w in model.trainable_variables if "layer_scale" in w.path]
    assert len(scales) == 5
    assert all(np.any(keras.ops.convert_to_numpy(w) != np.float32(1e-6)) for w in scales)


def test_blocks_are_groups_of_layer_decay():
    model = built(convnext.MODEL_CONFIGS["tiny"]["depths"])
    assert len([w for w in model.trainable_variables if "layer_scale" in w.path]) == 18
    groups = layer_groups.group(list(layer_paths(model)))
    names = {group[0].partition("_block_")[0] for group in groups}
    assert len(groups) == 24
    assert {f"convnext_tiny_stage_{stage}" for stage in range(4)} <= names
