"""Loss function of training and evaluation."""

import tensorflow as tf


def cross_entropy(logits: tf.Tensor, labels: tf.Tensor, label_smoothing: float = 0.0) -> tf.Tensor:
    """Returns the cross entropy [b] of logits [b, classes] for labels [b], smoothed if asked."""
    if not label_smoothing:
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
    classes = logits.shape[-1]
    targets = tf.one_hot(labels, classes, 1 - label_smoothing, 0.0) + label_smoothing / classes
    return tf.nn.softmax_cross_entropy_with_logits(targets, logits)
