import numpy as np
import pytest
import tensorflow as tf

from trainer.nn.optimizers import OPTIMIZERS, decays

RATES = [0.1, 0.1, 0.02, 0.5]
MOMENTA = [0.9, 0.9, 0.98, 0.5]


def slow(name, w, gradients):
    """The papers' formulas, ε outside the velocity."""
    u = np.zeros_like(w)
    for g, rate, m in zip(gradients, RATES, MOMENTA, strict=True):
        if name == "sgd":
            w = w - rate * g
            continue
        u = m * u + g
        w = w - rate * (u if name == "momentum" else g + m * u)
    return w


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_against_a_slow_reference(name):
    rng = np.random.default_rng(1)
    w, gradients = rng.normal(size=3), rng.normal(size=(4, 3))
    optimizer = OPTIMIZERS[name]
    x, slots = tf.constant(w), tuple(tf.zeros(3, tf.float64) for _ in range(optimizer.slots))
    for g, rate, m in zip(gradients, RATES, MOMENTA, strict=True):
        direction, slots = optimizer.direction(tf.constant(g), slots, tf.constant(m, tf.float64))
        x = x - rate * direction
    np.testing.assert_allclose(x, slow(name, w, gradients), rtol=1e-12)


def test_velocity_with_a_constant_rate_is_keras_sgd():
    import keras

    rng = np.random.default_rng(2)
    gradients = rng.normal(size=(5, 3)).astype(np.float32)
    for name in ("momentum", "nesterov"):
        theirs = keras.Variable(np.ones(3, np.float32))
        sgd = keras.optimizers.SGD(0.1, momentum=0.9, nesterov=name == "nesterov")
        ours, slots = tf.ones(3), (tf.zeros(3),)
        for g in gradients:
            sgd.apply([tf.constant(g)], [theirs])
            direction, slots = OPTIMIZERS[name].direction(tf.constant(g), slots, tf.constant(0.9))
            ours = ours - 0.1 * direction
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-5)


def test_kernels_decay_and_vectors_do_not():
    assert decays(tf.Variable(tf.zeros([3, 3, 1, 8])))
    assert decays(tf.Variable(tf.zeros([8, 10])))
    assert not decays(tf.Variable(tf.zeros([10])))
