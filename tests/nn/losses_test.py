import numpy as np
import pytest
import tensorflow as tf

from trainer.nn.losses import cross_entropy

LOGITS = np.random.default_rng(0).normal(size=(7, 5)).astype(np.float32) * 3
LABELS = np.array([0, 4, 2, 2, 1, 3, 0])


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_equals_its_definition(smoothing):
    targets = np.eye(5)[LABELS] * (1 - smoothing) + smoothing / 5
    logits = LOGITS.astype(np.float64)
    log_p = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    wanted = -(targets * log_p).sum(axis=1)
    losses = cross_entropy(tf.constant(LOGITS), tf.constant(LABELS), smoothing)
    np.testing.assert_allclose(losses, wanted, rtol=1e-5)
