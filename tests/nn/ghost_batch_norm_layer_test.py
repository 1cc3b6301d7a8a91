"""Ghost batch norm as a Keras layer: statistics, inference, precision, files, errors."""

import pathlib
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.nn.ghost_batch_norm_test import (
    EPSILON,
    KERNELS,
    draw,
    reference,
)
from trainer.errors import UserError
from trainer.nn.ghost_batch_norm import (
    GhostBatchNormalization,
    Statistics,
    collect_statistics,
    update_moving_statistic,
)


def layer_with_weights(kernel="fused", ghost_batch_size=4, channels=3, **kwargs):
    layer = GhostBatchNormalization(ghost_batch_size, kernel, **kwargs)
    layer.build((None, 5, 5, channels))
    generator = np.random.default_rng(1)
    layer.set_weights([generator.uniform(0.5, 2, weight.shape) for weight in layer.weights])
    return layer


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("scale", [True, False])
def test_layer_gradients_with_and_without_center_and_scale(kernel, center, scale):
    layer = layer_with_weights(kernel, center=center, scale=scale)
    x, _, _, dy = draw((8, 5, 5, 3), mean=1.0)
    gamma = layer.gamma.numpy() if scale else np.ones(3)
    beta = layer.beta.numpy() if center else np.zeros(3)
    y_want, _, _, dx_want, dgamma, dbeta = reference(x, gamma, beta, dy, 4)

    x = tf.constant(x)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
    dx, *dweights = tape.gradient(y, [x, *(w.value for w in layer.trainable_weights)], dy)

    np.testing.assert_allclose(y, y_want, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(dx, dx_want, rtol=1e-4, atol=1e-4)
    wanted = [dgamma] * scale + [dbeta] * center
    for got, want in zip(dweights, wanted, strict=True):
        np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kernel", KERNELS)
def test_one_call_updates_the_statistics_by_its_n_ghost_batches(kernel):
    layer = layer_with_weights(kernel, momentum=0.9)
    before = layer.moving_mean.numpy(), layer.moving_variance.numpy()
    x, gamma, beta, dy = draw((12, 5, 5, 3), mean=2.0)
    _, means, variances, *_ = reference(x, gamma, beta, dy, 4)
    layer(x, training=True)
    for variable, old, values in zip(
        (layer.moving_mean, layer.moving_variance), before, (means, variances), strict=True
    ):
        want = 0.9**3 * old + (1 - 0.9**3) * values.mean(0)
        np.testing.assert_allclose(variable.numpy(), want, rtol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_two_collected_micro_batches_equal_one_big_batch(kernel):
    x, *_ = draw((16, 5, 5, 3), mean=2.0)
    alone = layer_with_weights(kernel)
    alone(x, training=True)

    layer = layer_with_weights(kernel)
    before = layer.moving_mean.numpy(), layer.moving_variance.numpy()
    with collect_statistics() as collected:
        layer(x[:8], training=True)
        layer(x[8:], training=True)
    assert [statistics.layer for statistics in collected] == [layer, layer]
    np.testing.assert_array_equal(layer.moving_mean.numpy(), before[0])
    np.testing.assert_array_equal(layer.moving_variance.numpy(), before[1])

    mean = sum(statistics.mean_sum for statistics in collected) / 4
    variance = sum(statistics.variance_sum for statistics in collected) / 4
    for old, value, variable in zip(
        before, (mean, variance), (alone.moving_mean, alone.moving_variance), strict=True
    ):
        got = update_moving_statistic(tf.constant(old), value, layer.momentum, 4)
        np.testing.assert_allclose(got, variable.numpy(), rtol=1e-5)


def test_a_scope_collects_from_its_own_thread_until_it_ends():
    layer = layer_with_weights()
    x, *_ = draw((4, 5, 5, 3))
    with collect_statistics() as collected:
        other = threading.Thread(target=layer, args=(x,), kwargs={"training": True})
        other.start()
        other.join()
        assert collected == []
        with collect_statistics() as inner:
            layer(x, training=True)
        assert collected == []
        assert len(inner) == 1
        layer(x, training=True)
    assert len(collected) == 1
    assert isinstance(collected[0], Statistics)
    before = layer.moving_mean.numpy()
    layer(x, training=True)
    assert len(collected) == 1
    assert not np.array_equal(layer.moving_mean.numpy(), before)


def test_one_ghost_batch_trains_as_keras_batch_normalization():
    x, *_ = draw((8, 5, 5, 3), mean=1.0)
    ghost = layer_with_weights(ghost_batch_size=8)
    plain = keras.layers.BatchNormalization()
    plain.build((None, 5, 5, 3))
    plain.set_weights(ghost.get_weights())
    assert [w.name for w in ghost.weights] == [w.name for w in plain.weights]
    np.testing.assert_allclose(
        ghost(x, training=True), plain(x, training=True), rtol=1e-4, atol=1e-5
    )
    for one, other in zip(ghost.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


@pytest.mark.parametrize("kernel", KERNELS)
def test_inference_uses_the_moving_statistics_for_any_batch(kernel):
    layer = layer_with_weights(kernel)
    x, *_ = draw((7, 5, 5, 3))
    gamma, beta, mean, variance = (weight.numpy() for weight in layer.weights)
    want = gamma * (x - mean) / np.sqrt(variance + EPSILON) + beta
    np.testing.assert_allclose(layer(x), want, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(layer(x[:1], training=False), want[:1], rtol=1e-4, atol=1e-5)
    layer.trainable = False  # As in Keras, a frozen layer is in inference mode.
    with collect_statistics() as collected:
        np.testing.assert_allclose(layer(x, training=True), want, rtol=1e-4, atol=1e-5)
    # An entry without sums tells that the layer was called.
    assert [(entry.layer, entry.mean_sum) for entry in collected] == [(layer, None)]


@pytest.mark.parametrize("kernel", KERNELS)
def test_mixed_precision_computes_in_bfloat16(kernel):
    layer = layer_with_weights(kernel, dtype="mixed_bfloat16")
    x, *_ = draw((8, 5, 5, 3))
    with collect_statistics() as collected:
        assert layer(x, training=True).dtype == tf.bfloat16
    assert layer(x, training=False).dtype == tf.bfloat16
    assert collected[0].mean_sum.dtype == collected[0].variance_sum.dtype == tf.float32
    assert {weight.dtype for weight in layer.weights} == {"float32"}


def test_error_messages_name_the_value_and_the_remedy():
    x, *_ = draw((10, 5, 5, 3))
    message = r"4 does not divide .* 10 examples: use one of 1, 2, 5, 10"
    with pytest.raises(UserError, match=message):
        layer_with_weights()(x, training=True)
    with pytest.raises(UserError, match="drop_remainder"):
        tf.function(
            lambda x: layer_with_weights()(x, training=True),
            input_signature=[tf.TensorSpec([None, 5, 5, 3])],
            autograph=False,
        ).get_concrete_function()
    with pytest.raises(UserError, match=r"axis 1 .* rank 4"):
        GhostBatchNormalization(5, axis=1)(x, training=True)
    with pytest.raises(UserError, match="mask"):
        GhostBatchNormalization(5)(x, training=True, mask=tf.ones([10, 5, 5], tf.bool))
    with pytest.raises(UserError, match="ghost_batch_size 0"):
        GhostBatchNormalization(0)
    for contradiction in ({"renorm": True}, {"synchronized": True}):
        with pytest.raises(UserError, match="synchronized"):
            GhostBatchNormalization(4, **contradiction)
    with pytest.raises(ValueError, match="split"):
        GhostBatchNormalization(4, "split")


def test_save_and_load_round_trip(tmp_path: pathlib.Path):
    x, *_ = draw((8, 5, 5, 3))
    model = keras.Sequential(
        [keras.Input((5, 5, 3)), layer_with_weights("reshaped", momentum=0.97, epsilon=1e-4)]
    )
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=True)
    (layer,) = loaded.layers
    assert type(layer) is GhostBatchNormalization
    assert layer.get_config() == model.layers[0].get_config()
    assert (layer.ghost_batch_size, layer.kernel, layer.momentum) == (4, "reshaped", 0.97)
    np.testing.assert_array_equal(loaded(x), model(x))
    np.testing.assert_array_equal(loaded(x, training=True), model(x, training=True))


def test_checkpoints_of_a_plain_batch_normalization_load(tmp_path: pathlib.Path):
    plain = keras.layers.BatchNormalization()
    plain.build((None, 3))
    plain.set_weights(np.random.default_rng(0).uniform(1, 2, (4, 3)))
    path = tf.train.Checkpoint(norm=plain).write(tmp_path / "plain")
    ghost = layer_with_weights()
    tf.train.Checkpoint(norm=ghost).read(path).assert_consumed()
    for one, other in zip(plain.get_weights(), ghost.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
