"""AdamW with clipping, against a slow version of what torch documents.

torch 2.14.1 gives the numbers of `slow`, as its docstring says.
"""

import numpy as np
import pytest
import tensorflow as tf

from trainer.nn import clipping
from trainer.nn.optimizers import OPTIMIZERS, Update

UPDATES = 200
SHAPES = [(5, 3), (3,), (3, 3, 2, 4)]
DECAY, MOST = 0.1, 1.5


def problem():
    """Returns parameters, gradients [update][parameter] and rates; half of the norms are large."""
    rng = np.random.default_rng(7)
    weights = [rng.normal(size=shape) for shape in SHAPES]
    sizes = 10.0 ** rng.uniform(-2, 1.2, UPDATES)
    gradients = [[size * (rng.normal(size=s) + 0.5) / 6 for s in SHAPES] for size in sizes]
    return weights, gradients, np.linspace(0.001, 0.02, UPDATES)


def slow(weights, gradients, rates):
    """Returns the parameters after all updates, and the norms.

    Each update is clip_grad_norm_(parameters, MOST), then AdamW.step() with betas 0.9 and 0.999 and
    with a decay of DECAY for all but the vector. In float64, torch 2.14.1 gives the same parameters
    to 1.4e-15; in float32, it differs by 1.1e-6.
    """
    weights = [w.copy() for w in weights]
    means, squares = [[np.zeros_like(w) for w in weights] for _ in range(2)]
    norms = []
    for t, (of_each, rate) in enumerate(zip(gradients, rates, strict=True), start=1):
        norms.append(np.sqrt(sum(np.sum(g**2) for g in of_each)))
        factor = min(1.0, MOST / (norms[-1] + 1e-6))
        for i, g in enumerate(of_each):
            means[i] = 0.9 * means[i] + 0.1 * factor * g
            squares[i] = 0.999 * squares[i] + 0.001 * (factor * g) ** 2
            if weights[i].ndim > 1:
                weights[i] *= 1 - rate * DECAY
            root = np.sqrt(squares[i] / (1 - 0.999**t)) + 1e-8
            weights[i] -= rate * means[i] / (1 - 0.9**t) / root
    return weights, norms


@pytest.mark.parametrize(("dtype", "error"), [(tf.float64, 1e-12), (tf.float32, 2e-5)])
def test_adamw_with_clipping_is_that_of_torch(dtype, error):
    weights, gradients, rates = problem()
    wanted, norms = slow(weights, gradients, rates)
    optimizer = OPTIMIZERS["adamw"]
    x = [tf.constant(w, dtype) for w in weights]
    slots = [optimizer.start(w) for w in x]

    @tf.function
    def updated(x, slots, g, rate):
        g = clipping.clip(g, tf.linalg.global_norm(g), MOST)
        updates = [
            Update(w, each, tf.constant(0.9, dtype), DECAY) for w, each in zip(x, g, strict=True)
        ]
        found = [optimizer.direction(*each) for each in zip(updates, slots, strict=True)]
        return [w - rate * direction for w, (direction, _) in zip(x, found, strict=True)], [
            s for _, s in found
        ]

    for of_each, rate in zip(gradients, rates, strict=True):
        g = [tf.constant(each, dtype) for each in of_each]
        x, slots = updated(x, slots, g, tf.constant(rate, dtype))
    for ours, theirs in zip(x, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=error)
    clipped = clipping.clipped(np.float32(norms), MOST)
    np.testing.assert_array_equal(clipped, np.array(norms) > MOST)
    assert 60 < clipped.sum() < 140


def test_a_norm_at_the_limit_and_a_gradient_of_zeros():
    g = [tf.constant([3.0]), tf.constant([[4.0]])]
    assert [float(x.numpy().squeeze()) for x in clipping.clip(g, 5.0, 6.0)] == [3.0, 4.0]
    np.testing.assert_allclose(
        [x.numpy().squeeze() for x in clipping.clip(g, 5.0, 1.0)], [0.6, 0.8], rtol=1e-6
    )
    zeros = clipping.clip([tf.zeros([2])], tf.constant(0.0), 1.0)
    np.testing.assert_array_equal(zeros, [[0, 0]])
    np.testing.assert_array_equal(clipping.clipped(np.float32([0, 0.5, 2]), 1.0), [0, 0, 1])
