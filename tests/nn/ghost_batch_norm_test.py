"""Kernels of ghost batch norm, compared with a float64 reference from the formulas."""

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from trainer.nn.ghost_batch_norm import (
    normalize_fused,
    normalize_reshaped,
    update_moving_statistic,
)

EPSILON = 1e-3


KERNELS = ("fused", "reshaped")


# Shapes [b, ..., c] and G, with ranks 2 to 4, one or several ghost batches, and odd sizes.
SHAPES = [
    ((6, 3), 2),
    ((12, 5), 12),
    ((9, 4, 2), 3),
    ((8, 5, 3, 4), 4),
    ((10, 3, 7, 1), 5),
    ((64, 1, 1, 3), 32),
]


def reference(x, gamma, beta, dy, ghost_batch_size):
    """Returns outputs, statistics and gradients in float64 (Ioffe & Szegedy 2015, §3)."""
    x, gamma, beta, dy = (np.asarray(value, np.float64) for value in (x, gamma, beta, dy))
    y, dx = np.empty_like(x), np.empty_like(x)
    dgamma, dbeta = np.zeros_like(gamma), np.zeros_like(beta)
    means, variances = [], []
    axes = tuple(range(x.ndim - 1))
    for start in range(0, len(x), ghost_batch_size):
        rows = slice(start, start + ghost_batch_size)
        n = x[rows, ..., 0].size
        mean = x[rows].sum(axes) / n
        variance = ((x[rows] - mean) ** 2).sum(axes) / n
        inverse = 1 / np.sqrt(variance + EPSILON)
        normal = (x[rows] - mean) * inverse
        y[rows] = gamma * normal + beta
        dnormal = dy[rows] * gamma
        dvariance = (dnormal * (x[rows] - mean)).sum(axes) * -0.5 * inverse**3
        dmean = -(dnormal * inverse).sum(axes) - dvariance * 2 * (x[rows] - mean).sum(axes) / n
        dx[rows] = dnormal * inverse + dvariance * 2 * (x[rows] - mean) / n + dmean / n
        dgamma += (dy[rows] * normal).sum(axes)
        dbeta += dy[rows].sum(axes)
        means.append(mean)
        variances.append(variance)
    return y, np.stack(means), np.stack(variances), dx, dgamma, dbeta


def draw(shape, seed=0, mean=0.0):
    """Returns an input of unit standard deviation, gamma, beta and the gradient of the output."""
    generator = np.random.default_rng(seed)
    x = (generator.normal(size=shape) + mean).astype(np.float32)
    gamma = generator.uniform(0.5, 2, shape[-1]).astype(np.float32)
    beta = generator.normal(size=shape[-1]).astype(np.float32)
    return x, gamma, beta, generator.normal(size=shape).astype(np.float32)


def run(kernel, x, gamma, beta, dy, ghost_batch_size, shift=0.0, jit_compile=False):
    """Returns the values of `reference` as the kernel computes them."""

    @tf.function(jit_compile=jit_compile, autograph=False)
    def forward_and_backward(x, gamma, beta, dy):
        sizes = {"ghost_batch_size": ghost_batch_size, "epsilon": EPSILON}
        with tf.GradientTape() as tape:
            tape.watch([x, gamma, beta])
            if kernel == "fused":
                y, mean, variance = normalize_fused(x, gamma, beta, **sizes)
            else:
                k = tf.fill([x.shape[-1]], tf.constant(shift, tf.float32))
                y, mean, variance = normalize_reshaped(x, gamma, beta, k, **sizes)
        return y, mean, variance, *tape.gradient(y, [x, gamma, beta], dy)

    values = forward_and_backward(*map(tf.constant, (x, gamma, beta, dy)))
    return [value.numpy() for value in values]


def assert_like_reference(got, x, gamma, beta, dy, ghost_batch_size, tolerance):
    want = reference(x, gamma, beta, dy, ghost_batch_size)
    for name, one, other in zip(
        ("y", "mean", "variance", "dx", "dgamma", "dbeta"), got, want, strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize(("shape", "ghost_batch_size"), SHAPES)
def test_kernels_equal_the_reference(kernel, shape, ghost_batch_size):
    drawn = draw(shape)
    got = run(kernel, *drawn, ghost_batch_size)
    assert_like_reference(got, *drawn, ghost_batch_size, 1e-4)


@pytest.mark.parametrize(("shape", "ghost_batch_size"), SHAPES[::3])
def test_reshaped_kernel_equals_the_reference_under_xla(shape, ghost_batch_size):
    drawn = draw(shape)
    got = run("reshaped", *drawn, ghost_batch_size, jit_compile=True)
    assert_like_reference(got, *drawn, ghost_batch_size, 1e-4)


@pytest.mark.parametrize("jit_compile", [False, True])
@pytest.mark.parametrize("mean", [0.0, 10.0, 100.0])
def test_the_reshaped_kernel_is_accurate_far_from_zero_with_a_warm_shift(mean, jit_compile):
    """Checks a shift that differs by up to 10 standard deviations: 10% of a mean of 100."""
    drawn = draw((64, 28, 28, 3), mean=mean)
    got = run("reshaped", *drawn, 32, shift=0.9 * mean, jit_compile=jit_compile)
    _, means, variances, dx, *_ = reference(*drawn, 32)
    np.testing.assert_allclose(got[1], means, atol=1e-5 * max(mean, 1))
    np.testing.assert_allclose(got[2], variances, rtol=1e-4)
    np.testing.assert_allclose(got[3], dx, atol=2e-4)


@pytest.mark.parametrize("mean", [0.0, 10.0, 100.0])
def test_the_fused_kernel_is_accurate_far_from_zero(mean):
    drawn = draw((64, 28, 28, 3), mean=mean)
    got = run("fused", *drawn, 32)
    _, _, variances, dx, *_ = reference(*drawn, 32)
    np.testing.assert_allclose(got[2], variances, rtol=1e-5)
    np.testing.assert_allclose(got[3], dx, atol=2e-4)


@pytest.mark.parametrize(("mean", "bound"), [(10.0, 1e-4), (100.0, 1e-2)])
def test_the_reshaped_kernel_loses_few_digits_at_a_cold_start(mean, bound):
    drawn = draw((64, 28, 28, 3), mean=mean)
    _, _, variances, *_ = reference(*drawn, 32)
    error = np.abs(run("reshaped", *drawn, 32, shift=0.0)[2] / variances - 1).max()
    # The lower bound checks that a cold start loses digits, as the module's docstring says.
    assert bound / 100 < error < bound


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_constant_channel_has_finite_gradients(kernel):
    x, gamma, beta, dy = draw((4, 3, 3, 2))
    x[..., 0] = 7.0
    got = run(kernel, x, gamma, beta, dy, 2)
    assert_like_reference(got, x, gamma, beta, dy, 2, 1e-4)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", [tf.bfloat16, tf.float16])
def test_half_precision_keeps_float32_statistics(kernel, dtype):
    x, gamma, beta, dy = draw((8, 6, 6, 3), mean=3.0)
    x, dy = tf.cast(x, dtype), tf.cast(dy, dtype)
    y, mean, variance, dx, dgamma, dbeta = run(kernel, x, gamma, beta, dy, 4, shift=2.0)
    assert (y.dtype, dx.dtype) == (dtype.as_numpy_dtype, dtype.as_numpy_dtype)
    want = reference(tf.cast(x, tf.float64), gamma, beta, tf.cast(dy, tf.float64), 4)
    for got, expected in zip((mean, variance, dgamma, dbeta), want[1:3] + want[4:], strict=True):
        assert got.dtype == np.float32
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(y.astype(np.float64), want[0], rtol=1e-2, atol=1e-2)
    np.testing.assert_allclose(dx.astype(np.float64), want[3], rtol=1e-2, atol=2e-2)


@given(
    decay=st.floats(0.0, 1.0, exclude_max=True),
    ghost_batches=st.integers(1, 10_000),
    moving=st.floats(-100, 100),
    mean=st.floats(-100, 100),
)
@settings(max_examples=60, deadline=None)
def test_the_moving_statistic_equals_the_closed_form(decay, ghost_batches, moving, mean):
    got = update_moving_statistic(
        tf.constant([moving]), tf.constant([mean]), decay, tf.constant(ghost_batches)
    )
    want = decay**ghost_batches * moving + (1 - decay**ghost_batches) * mean
    np.testing.assert_allclose(got, [want], rtol=1e-6, atol=1e-4)


def test_a_small_weight_keeps_its_digits():
    for decay, ghost_batches in ((0.99, 1), (0.9999, 1), (0.9999, 3)):
        weight = update_moving_statistic(tf.zeros([1]), tf.ones([1]), decay, ghost_batches).numpy()[
            0
        ]
        assert weight == pytest.approx(1 - decay**ghost_batches, rel=3e-7)
