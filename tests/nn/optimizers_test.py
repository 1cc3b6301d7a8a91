import keras
import numpy as np
import pytest
import tensorflow as tf

from trainer.nn.optimizers import OPTIMIZERS, Update, decays

UPDATES = 60
# The rate warms up, falls and rises; the momentum rises, and is zero for one update.
RATES = np.concatenate([np.linspace(0.01, 0.1, 10), np.full(25, 0.02), np.full(25, 0.05)])
MOMENTA = np.concatenate([np.full(20, 0.9), np.linspace(0.9, 0.99, 19), [0.0], np.full(20, 0.5)])
DECAY = 0.03
SHAPES = [(3, 3, 2, 4), (5, 3), (4,)]


def gradients_of(shape, seed=1):
    """Returns noise around a mean; sizes differ by factors up to 1000 between updates."""
    rng = np.random.default_rng(seed)
    sizes = 10.0 ** rng.uniform(-3, 0, UPDATES)
    return [size * (rng.normal(size=shape) + 0.5) for size in sizes]


def slow_velocity(w, gradients, nesterov):
    u, decay = np.zeros_like(w), DECAY if w.ndim > 1 else 0.0
    for g, rate, m in zip(gradients, RATES, MOMENTA, strict=True):
        g = g + decay * w
        u = m * u + g
        w = w - rate * (g + m * u if nesterov else u)
    return w


def slow_sgd(w, gradients):
    for g, rate in zip(gradients, RATES, strict=True):
        w = w - rate * (g + DECAY * w if w.ndim > 1 else g)
    return w


def slow_moments(gradients):
    """Yields m̂ and v̂ of Kingma & Ba's algorithm 1, each written as a weighted mean."""
    for t in range(1, len(gradients) + 1):
        first = [(1 - MOMENTA[i]) * np.prod(MOMENTA[i + 1 : t]) for i in range(t)]
        second = [(1 - 0.999) * 0.999 ** (t - 1 - i) for i in range(t)]
        assert sum(second) == pytest.approx(1 - 0.999**t)
        yield (
            np.average(gradients[:t], axis=0, weights=first),
            np.average(np.square(gradients[:t]), axis=0, weights=second),
        )


def slow_adam(w, gradients):
    """Returns w after the updates; recursive, since coupled decay makes ∇ depend on w."""
    m, v, left = np.zeros_like(w), np.zeros_like(w), 1.0
    for t, (g, rate, beta1) in enumerate(zip(gradients, RATES, MOMENTA, strict=True), start=1):
        g = g + DECAY * w if w.ndim > 1 else g
        m = beta1 * m + (1 - beta1) * g
        v = 0.999 * v + (1 - 0.999) * g * g
        left *= beta1
        w = w - rate * (m / (1 - left)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)
    return w


def slow_adamw(w, gradients):
    """Returns w after the updates of torch.optim.AdamW, in the order of its documentation."""
    decay = DECAY if w.ndim > 1 else 0.0
    for (m, v), rate in zip(slow_moments(gradients), RATES, strict=True):
        w = w * (1 - rate * decay)
        w = w - rate * m / (np.sqrt(v) + 1e-8)
    return w


def slow_lars(w, gradients):
    u = np.zeros_like(w)
    for g, rate, m in zip(gradients, RATES, MOMENTA, strict=True):
        if w.ndim > 1:
            size = np.sqrt(np.sum(w**2))
            local = 0.001 * size / (np.sqrt(np.sum(g**2)) + DECAY * size)
            g = local * (g + DECAY * w)
        u = m * u + g
        w = w - rate * u
    return w


def slow_lamb(w, gradients):
    for (m, v), rate in zip(slow_moments(gradients), RATES, strict=True):
        r = m / (np.sqrt(v) + 1e-6)
        if w.ndim > 1:
            r = r + DECAY * w
            r = r * np.sqrt(np.sum(w**2)) / np.sqrt(np.sum(r**2))
        w = w - rate * r
    return w


SLOW = {
    "sgd": slow_sgd,
    "momentum": lambda w, gradients: slow_velocity(w, gradients, nesterov=False),
    "nesterov": lambda w, gradients: slow_velocity(w, gradients, nesterov=True),
    "adam": slow_adam,
    "adamw": slow_adamw,
    "lars": slow_lars,
    "lamb": slow_lamb,
}


def moved(name, w, gradients, dtype, rates=RATES, momenta=MOMENTA, decay=DECAY):
    """Returns w after one update for each gradient."""
    optimizer = OPTIMIZERS[name]
    x = tf.constant(w, dtype)
    slots = optimizer.start(x)
    for g, rate, m in zip(gradients, rates, momenta, strict=True):
        update = Update(x, tf.constant(g, dtype), tf.constant(m, dtype), decay)
        direction, slots = optimizer.direction(update, slots)
        assert direction.dtype == dtype
        assert {slot.dtype for slot in slots} <= {dtype}
        assert [slot.shape for slot in slots] == [slot.shape for slot in optimizer.start(x)]
        x = x - tf.constant(rate, dtype) * direction
    return x.numpy()


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_optimizers_equal_a_slow_reference(name, shape):
    w, gradients = np.random.default_rng(2).normal(size=shape), gradients_of(shape)
    wanted = SLOW[name](w, gradients)
    assert np.abs(wanted - w).max() > 0.01
    np.testing.assert_allclose(moved(name, w, gradients, tf.float64), wanted, rtol=1e-9)
    np.testing.assert_allclose(moved(name, w, gradients, tf.float32), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["adam", "adamw", "lamb"])
def test_the_first_direction_of_adaptive_optimizers_is_the_sign_of_the_gradient(name):
    for m in (0.0, 0.9, 0.999999):
        g = np.float32([2.0, -0.1, 30.0])
        step = moved(name, np.zeros(3), [g], tf.float32, [1.0], [m])
        np.testing.assert_allclose(step, -np.sign(g), rtol=1e-4)


@pytest.mark.parametrize("name", ["lars", "lamb"])
def test_trust_ratios_apply_to_whole_kernels_and_not_to_vectors(name):
    rng = np.random.default_rng(3)
    w, g = rng.normal(size=(3, 3, 2, 4)), rng.uniform(1, 2, size=(3, 3, 2, 4))
    trust = 0.001 if name == "lars" else 1.0
    one = moved(name, w, [g], tf.float64, [1.0], [0.9], decay=0.0) - w
    assert np.linalg.norm(one) == pytest.approx(trust * np.linalg.norm(w))
    # The size of a kernel's gradient does not matter; the size of a vector's does with lars.
    thousandfold = moved(name, w, [1000 * g], tf.float64, [1.0], [0.9], decay=0.0) - w
    np.testing.assert_allclose(thousandfold, one, rtol=1e-5)
    plain = "momentum" if name == "lars" else "adam"
    for decay in (0.0, DECAY):
        vector = moved(name, w.ravel(), [g.ravel()], tf.float64, [1.0], [0.9], decay)
        wanted = moved(plain, w.ravel(), [g.ravel()], tf.float64, [1.0], [0.9], decay)
        np.testing.assert_allclose(vector, wanted, atol=1e-5)


@pytest.mark.parametrize("decay", [0.0, DECAY])
@pytest.mark.parametrize("name", ["lars", "lamb"])
def test_the_trust_ratio_is_one_if_a_norm_is_zero(name, decay):
    zeros, ones = np.zeros((2, 3)), np.ones((2, 3))
    step = moved(name, zeros, [0.5 * ones], tf.float32, [1.0], [0.0], decay)
    np.testing.assert_allclose(step, -0.5 * ones if name == "lars" else -ones, rtol=1e-5)
    still = moved(name, ones, [zeros], tf.float32, [1.0], [0.0], decay)
    # The norm in lamb is that of r + λ w, which is zero only without decay.
    left = {"lars": 1 - decay, "lamb": 0.0 if decay else 1.0}[name]
    np.testing.assert_allclose(still, left * ones, atol=1e-6)
    np.testing.assert_array_equal(moved(name, zeros, [zeros], tf.float32, [1.0], [0.0]), zeros)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("momentum", lambda: keras.optimizers.SGD(0.1, momentum=0.9)),
        ("nesterov", lambda: keras.optimizers.SGD(0.1, momentum=0.9, nesterov=True)),
        ("adam", lambda: keras.optimizers.Adam(0.1, epsilon=1e-8)),
        ("lamb", lambda: keras.optimizers.Lamb(0.1, epsilon=1e-6)),
    ],
)
def test_with_constant_rate_and_momentum_optimizers_equal_those_of_keras(name, make):
    gradients = gradients_of((5, 3))
    w = np.random.default_rng(4).normal(size=(5, 3)).astype(np.float32)
    variable, optimizer = keras.Variable(w), make()
    for g in gradients:
        optimizer.apply([tf.constant(g, tf.float32)], [variable])
    result = moved(name, w, gradients, tf.float32, [0.1] * UPDATES, [0.9] * UPDATES, decay=0.0)
    np.testing.assert_allclose(result, variable.numpy(), rtol=1e-3, atol=1e-4)


def test_the_metric_of_an_adaptive_optimizer_is_that_before_its_next_update():
    """Also checks that an element which had no gradient so far has no part."""
    w, gradients = np.zeros((2, 3)), [np.float32([[1, -2, 0], [0.5, 1e-9, 3]]), np.ones((2, 3))]
    for name, epsilon in (("adam", 1e-8), ("adamw", 1e-8), ("lamb", 1e-6)):
        optimizer = OPTIMIZERS[name]
        slots = optimizer.start(tf.constant(w, tf.float32))
        np.testing.assert_array_equal(optimizer.metric(slots), np.zeros((2, 3)))
        for number, gradient in enumerate(gradients):
            x, g = tf.constant(w, tf.float32), tf.constant(gradient, tf.float32)
            _, slots = optimizer.direction(Update(x, g, tf.constant(0.9), 0.0), slots)
            seen = gradients[: number + 1]
            v = np.average(np.square(seen), axis=0, weights=[0.999, 1][-len(seen) :])
            wanted = np.where(v > 0, 1 / (np.sqrt(v) + epsilon), 0)
            np.testing.assert_allclose(optimizer.metric(slots), wanted, rtol=1e-4)
    assert all(OPTIMIZERS[name].metric is None for name in ("sgd", "momentum", "nesterov", "lars"))


def test_kernels_decay_and_vectors_do_not():
    assert decays(tf.Variable(tf.zeros([3, 3, 1, 8])))
    assert decays(tf.Variable(tf.zeros([8, 10])))
    assert not decays(tf.Variable(tf.zeros([10])))
