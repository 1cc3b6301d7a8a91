import json

import numpy as np
import pytest

from trainer.schedule.gradient_noise import GradientNoise


def squares(gradients, b):
    """Returns what the training step reports of gradients [update, example, parameter]."""
    updates, size, parameters = gradients.shape
    parts = gradients.reshape(updates, size // b, b, parameters).mean(axis=2)
    whole = gradients.mean(axis=1)
    return (parts**2).sum(axis=2).mean(axis=1).tolist(), (whole**2).sum(axis=1).tolist()


@pytest.mark.parametrize(
    ("replicas", "b", "k"), [(1, 16, 2), (2, 16, 1), (1, 8, 16), (4, 32, 3), (1, 1, 7)]
)
def test_linear_regression_has_the_expected_noise_scale(replicas, b, k):
    """Checks tr Σ and ‖G‖² of y = x·w + σ n, x ~ N(0, I) in d dimensions, at the weights w + δ.

    For half the squared error, the gradient of an example is (x·δ − σ n) x. Its mean is δ. The
    trace of its covariance is (d + 1) ‖δ‖² + σ² d, from E[(x·δ)² ‖x‖²] = (d + 2) ‖δ‖².
    """
    rng = np.random.default_rng(b * k)
    d, sigma, size = 10, 0.5, replicas * b * k
    delta = rng.normal(size=d)
    updates = 400_000 // size
    x = rng.normal(size=(updates, size, d))
    error = x @ delta - sigma * rng.normal(size=(updates, size))
    noise = GradientNoise(horizon=100_000)
    noise.add(b, size, *squares(error[..., None] * x, b))
    square = delta @ delta
    trace = (d + 1) * square + sigma**2 * d
    assert noise.trace / noise.weight == pytest.approx(trace, rel=0.05)
    assert noise.square / noise.weight == pytest.approx(square, rel=0.05)
    assert noise.scale == pytest.approx(trace / square, rel=0.05)


def test_the_weight_of_a_measurement_depends_on_its_examples_alone():
    small, large = GradientNoise(1000), GradientNoise(1000)
    small.add(32, 64, [3.0] * 10, [2.0] * 10)
    large.add(320, 640, [3.0], [2.0])
    assert small.weight == pytest.approx(large.weight)


def test_an_update_of_one_micro_batch_measures_nothing():
    noise = GradientNoise(1000)
    noise.add(64, 64, [1.0, 1.0], [1.0, 1.0])
    assert noise.scale is None
    noise.add(32, 64, [1.0], [0.25])  # These gradients are all noise.
    assert noise.scale == float("inf")


def test_averages_continue_from_a_restored_state():
    whole, first, second = GradientNoise(500), GradientNoise(500), GradientNoise(500)
    for noise, parts in ((whole, (5, 7)), (first, (5,))):
        for updates in parts:
            noise.add(32, 64, [3.1] * updates, [2.2] * updates)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    second.add(32, 64, [3.1] * 7, [2.2] * 7)
    assert second == whole
