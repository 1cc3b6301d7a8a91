"""Gradients and number formats of built models, in float32 and bfloat16."""

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.nn.models.registry_test import images_of, make, norms_of
from trainer.nn.ghost_batch_norm import collect_statistics
from trainer.nn.ghostify import ghostify
from trainer.nn.losses import TrainingLoss
from trainer.nn.optimizers import decays
from trainer.training.gradients import GradientFunction


def forward_and_back(model, batch):
    """Returns the traced function of one forward and backward pass over `batch` examples."""
    backward = GradientFunction(model, loss=TrainingLoss(), seed=0, order_version=2)
    images = tf.constant(images_of(batch, model.input_shape[1:]))
    labels = tf.range(batch, dtype=tf.int64)
    function = tf.function(lambda: backward(images, labels, tf.constant(0, tf.int64)))
    return function.get_concrete_function()


@pytest.fixture(scope="module")
def mobile_net():
    return make("MobileNet", precision="bfloat16", ghost_batch_size=4)


def check_gradients(model, sums):
    """Checks that the parameters have finite gradients other than zero, and that kernels decay."""
    for variable, gradient in zip(model.trainable_variables, sums.gradients, strict=True):
        assert gradient.dtype == tf.float32
        assert np.all(np.isfinite(gradient))
        assert np.any(gradient != 0), variable.path
        kernel = variable.name.endswith("kernel")  # This includes depthwise and pointwise ones.
        assert decays(variable.value) == kernel, variable.path


# ConvNeXt is in convnext_test.py.
@pytest.mark.parametrize(
    ("name", "side", "precision"),
    [
        ("MobileNet", 32, "bfloat16"),
        ("MobileNetV3Small", 32, "float32"),  # It has squeeze and excitation, and dropout.
        ("Xception", 71, "bfloat16"),  # It has separable convolutions.
    ],
)
def test_families_of_keras_applications_have_finite_gradients(name, side, precision, mobile_net):
    if name == "MobileNet":
        model = mobile_net
    else:
        model = make(name, image_shape=(side, side, 3), precision=precision, ghost_batch_size=4)
    sums = forward_and_back(model, 4)()
    check_gradients(model, sums)
    assert len(sums.statistics) == len(norms_of(model))
    for mean, variance in sums.statistics:
        assert np.all(np.isfinite(mean))
        assert np.all(variance >= 0)


@pytest.fixture(scope="module")
def resnet():
    return make("resnet_50", precision="bfloat16")


@pytest.mark.parametrize("kernel", ["fused", "reshaped"])
def test_in_bfloat16_resnet_50_has_float32_norms_logits_and_loss(kernel, resnet):
    function = forward_and_back(ghostify(resnet, ghost_batch_size=2, kernel=kernel), 2)
    kinds = {}
    for operation in function.graph.get_operations():
        kinds.setdefault(operation.type, []).append(operation)

    def types(kind, attribute="T"):
        return {operation.get_attr(attribute) for operation in kinds[kind]}

    assert len(kinds["Conv2D"]) == 53
    assert types("Conv2D") == {tf.bfloat16}
    assert types("MatMul") == types("SparseSoftmaxCrossEntropyWithLogits") == {tf.float32}
    if kernel == "fused":
        for kind in ("FusedBatchNormV3", "FusedBatchNormGradV3"):
            assert len(kinds[kind]) == 53
            assert (types(kind), types(kind, "U")) == ({tf.bfloat16}, {tf.float32})
    else:
        assert len(kinds["Rsqrt"]) == 53
        assert types("Rsqrt") == types("Square") == {tf.float32}
    sums = function.structured_outputs
    assert {x.dtype for x in tf.nest.flatten(sums)} == {tf.float32}


def test_logits_of_keras_applications_are_computed_in_float32(tmp_path: pathlib.Path, mobile_net):
    model = mobile_net
    logits = model(images_of(4), training=True)
    assert not np.all(logits == tf.cast(tf.cast(logits, tf.bfloat16), tf.float32))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images_of(2)), model(images_of(2)))


@pytest.mark.parametrize("name", ["wide_resnet_10_1", "MobileNetV2"])
def test_in_bfloat16_parameters_statistics_and_logits_are_float32(name):
    exact, model = (
        make(name, ghost_batch_size=32, precision=precision)
        for precision in ("float32", "bfloat16")
    )
    assert keras.config.dtype_policy().name == "float32"
    assert {variable.dtype for variable in model.weights} == {"float32"}
    assert all(norm.compute_dtype == "bfloat16" for norm in norms_of(model))
    images = images_of(32)
    with collect_statistics() as collected:
        logits = model(images, training=True)
    with collect_statistics() as wanted:
        wanted_logits = exact(images, training=True)
    assert (logits.dtype, model.output.dtype) == (tf.float32, "float32")
    # A value has eight bits, an error of 0.4%, which grows with the depth of the layer.
    first, wanted_first = collected[0], wanted[0]
    assert first.variance_sum.dtype == tf.float32
    np.testing.assert_allclose(first.variance_sum, wanted_first.variance_sum, rtol=0.01)
    assert np.corrcoef(np.ravel(logits), np.ravel(wanted_logits))[0, 1] > 0.95
    assert np.any(logits != wanted_logits)
