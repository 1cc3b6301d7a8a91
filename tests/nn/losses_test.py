"""Both losses equal their definitions in float64, for labels, mixed labels and smoothed ones."""

import math

import numpy as np
import pytest
import tensorflow as tf

from trainer.nn.losses import Loss, MixedLabels, TrainingLoss, largest_share

RNG = np.random.default_rng(0)
CLASSES, COUNT = 5, 40
LOGITS = RNG.normal(size=(COUNT, CLASSES)).astype(np.float32) * 3
LABELS = RNG.integers(0, CLASSES, COUNT)
PARTNERS = RNG.integers(0, CLASSES, COUNT)  # Some are those of the image.
SHARES = np.concatenate([[0.0, 1.0, 0.5, 0.2], RNG.random(COUNT - 4)]).astype(np.float32)
MIXED = MixedLabels(*map(tf.constant, (LABELS, PARTNERS, SHARES)))
WEIGHTS = (0.25, 1.0, 4.0, 0.5, 2.0)
LOSSES = [Loss("softmax"), Loss("sigmoid"), Loss("sigmoid", mean_over_classes=True)]


def reference(loss, logits, targets):
    """The loss of one example, term by term."""
    z = [float(x) for x in logits]
    if loss.name == "softmax":
        total = math.fsum(map(math.exp, z))
        return -math.fsum(t * (x - math.log(total)) for x, t in zip(z, targets, strict=True))
    p = [1 / (1 + math.exp(-x)) for x in z]
    terms = [-t * math.log(q) - (1 - t) * math.log1p(-q) for q, t in zip(p, targets, strict=True)]
    return math.fsum(terms) / (len(z) if loss.mean_over_classes else 1)


def target(label, smoothing=0.0):
    smoothed = [smoothing / CLASSES] * CLASSES
    smoothed[label] += 1 - smoothing
    return smoothed


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_a_loss_of_labels_equals_its_definition(loss, smoothing):
    wanted = [reference(loss, z, target(y, smoothing)) for z, y in zip(LOGITS, LABELS, strict=True)]
    found = loss.of_labels(tf.constant(LOGITS), tf.constant(LABELS), smoothing)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    weighted = TrainingLoss(loss, smoothing, class_weights=WEIGHTS)
    by_class = np.array(WEIGHTS)[LABELS]
    np.testing.assert_allclose(weighted(LOGITS, tf.constant(LABELS)), by_class * wanted, rtol=1e-5)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_a_loss_of_mixed_labels_is_the_mixture_of_the_losses(loss, smoothing, weights):
    w = weights or (1.0,) * CLASSES
    wanted = [
        share * w[a] * reference(loss, z, target(a, smoothing))
        + (1 - share) * w[b] * reference(loss, z, target(b, smoothing))
        for z, a, b, share in zip(LOGITS, LABELS, PARTNERS, SHARES.tolist(), strict=True)
    ]
    found = TrainingLoss(loss, smoothing, class_weights=weights)(tf.constant(LOGITS), MIXED)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradients_are_those_of_the_mixture(loss):
    """TensorFlow's softmax loss has a wrong gradient if its targets do not sum to 1."""
    logits = tf.constant(LOGITS)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        losses = TrainingLoss(loss, 0.1, class_weights=WEIGHTS)(logits, MIXED)
    found = tape.gradient(losses, logits)
    p = loss.probabilities(tf.constant(LOGITS, tf.float64)).numpy()
    w = np.array(WEIGHTS)
    own, other = SHARES * w[LABELS], (1 - SHARES) * w[PARTNERS]
    targets = np.stack([np.eye(CLASSES)[y] * 0.9 + 0.02 for y in (LABELS, PARTNERS)])
    wanted = own[:, None] * (p - targets[0]) + other[:, None] * (p - targets[1])
    np.testing.assert_allclose(
        found, wanted / (CLASSES if loss.mean_over_classes else 1), atol=1e-5
    )


@pytest.mark.parametrize("weights", [None, WEIGHTS])
def test_a_threshold_makes_the_targets_of_large_shares_1(weights):
    loss, w = Loss("sigmoid"), weights or (1.0,) * CLASSES
    wanted = []
    for z, a, b, share in zip(LOGITS, LABELS, PARTNERS, SHARES.tolist(), strict=True):
        of = np.zeros(CLASSES)
        of[a] += share
        of[b] += 1 - share
        targets = [0.9 * float(t > 0.25) + 0.02 for t in of]
        wanted.append((share * w[a] + (1 - share) * w[b]) * reference(loss, z, targets))
    found = TrainingLoss(loss, 0.1, threshold=0.25, class_weights=weights)(LOGITS, MIXED)
    np.testing.assert_allclose(found, wanted, rtol=1e-4)


def test_the_label_with_the_larger_share_counts():
    wanted = [a if share >= 0.5 else b for a, b, share in zip(*map(np.array, MIXED), strict=True)]
    np.testing.assert_array_equal(largest_share(MIXED), wanted)
    np.testing.assert_array_equal(largest_share(tf.constant(LABELS)), LABELS)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("classes", [2, 1000])
def test_the_loss_at_chance_is_that_of_equal_probabilities(loss, classes):
    logit = 0.0 if loss.name == "softmax" else -math.log(classes - 1)
    found = loss.of_labels(tf.fill([1, classes], logit), tf.constant([1]))
    assert loss.at_chance(classes) == pytest.approx(float(found[0]), rel=1e-4)
    np.testing.assert_allclose(loss.probabilities(tf.fill([1, 2], 0.0)), [[0.5, 0.5]])


def test_large_logits_do_not_overflow():
    found = Loss("sigmoid").of_labels(tf.constant([[1e4, -1e4], [-1e4, 1e4]]), tf.constant([0, 0]))
    np.testing.assert_allclose(found, [0, 2e4])


@pytest.mark.parametrize("loss", LOSSES)
def test_the_order_of_classes_is_that_of_logits_where_probabilities_are_equal(loss):
    logits = tf.constant([[20.0, 40.0, 30.0, -300.0, -200.0], [1.0, 2.0, 2.0, -1.0, 0.0]])
    probabilities, classes = loss.most_probable(logits, 5)
    assert classes.numpy().tolist() == [[1, 2, 0, 4, 3], [1, 2, 0, 4, 3]]
    wanted = tf.gather(loss.probabilities(logits), classes, batch_dims=1)
    np.testing.assert_array_equal(probabilities, wanted)
    # Otherwise, a class other than the evaluation's would come first.
    sure = loss.probabilities(logits)[0, :3]
    assert loss.name == "softmax" or sure.numpy().tolist() == [1, 1, 1]
