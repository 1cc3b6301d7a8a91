"""Loss functions of training and evaluation, and the class probabilities that belong to them.

There are two losses. Each is the cross entropy of one example with targets t in [0, 1] and logits
z. Below, c is the index of a class, and p_c is the class's probability:

    softmax:  −Σ_c t_c log p_c,                                p = softmax(z)
    sigmoid:  −Σ_c (t_c log p_c + (1 − t_c) log(1 − p_c)),     p_c = 1 / (1 + exp(−z_c))

`sigmoid` is a sum over the classes, as in big_vision. It may also be a mean over the classes, as in
ResNet strikes back (2110.00476) and PyTorch. The target of the label's class is 1; the targets of
all other classes are 0. With label smoothing s, a target t becomes (1 − s) t + s / classes in both
losses.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import NamedTuple

import tensorflow as tf

from trainer.config.flags import Config


class MixedLabels(NamedTuple):
    """Labels of mixed images: mixup or cutmix has mixed a partner, another image, into each image.

    Attributes:
      labels: int [b], label of the image itself.
      partners: int [b], label of the partner.
      shares: float32 [b], share λ of the image itself; its partner's share is 1 − λ.
    """

    labels: tf.Tensor
    partners: tf.Tensor
    shares: tf.Tensor


def largest_share(labels: tf.Tensor | MixedLabels) -> tf.Tensor:
    """Returns for each image the label with the larger share, [b]; its own label if shares tie."""
    if not isinstance(labels, MixedLabels):
        return labels
    return tf.where(labels.shares >= 0.5, labels.labels, labels.partners)


@dataclasses.dataclass(frozen=True)
class Loss:
    """Loss function of a run, without the class weights and mixed labels of training.

    Attributes:
      name: softmax or sigmoid.
      mean_over_classes: whether `sigmoid` takes the mean over classes instead of the sum.
    """

    name: str = "softmax"
    mean_over_classes: bool = False

    @classmethod
    def from_config(cls, config: Config) -> "Loss":
        """Returns the loss that --loss and --sigmoid_reduction name."""
        return cls(config.loss, config.sigmoid_reduction == "mean")

    def of_labels(
        self, logits: tf.Tensor, labels: tf.Tensor, label_smoothing: float = 0.0
    ) -> tf.Tensor:
        """Returns the losses [b] of logits [b, classes] for integer labels [b]."""
        if self.name == "softmax" and not label_smoothing:
            return tf.nn.sparse_softmax_cross_entropy_with_logits(labels, logits)
        classes = logits.shape[-1]
        targets = tf.one_hot(labels, classes, 1 - label_smoothing, 0.0) + label_smoothing / classes
        return self.of_targets(logits, targets)

    def of_targets(self, logits: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        """Returns the losses [b]; arguments are [b, classes], and softmax targets must sum to 1."""
        if self.name == "softmax":
            return tf.nn.softmax_cross_entropy_with_logits(targets, logits)
        losses = tf.nn.sigmoid_cross_entropy_with_logits(targets, logits)
        return tf.reduce_mean(losses, -1) if self.mean_over_classes else tf.reduce_sum(losses, -1)

    def probabilities(self, logits: tf.Tensor) -> tf.Tensor:
        """Returns the probabilities [b, classes]; with `sigmoid`, their sum may differ from 1."""
        return tf.nn.softmax(logits) if self.name == "softmax" else tf.sigmoid(logits)

    def most_probable(self, logits: tf.Tensor, count: int) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the largest probabilities [b, count], best first, and their classes, int32.

        Classes are ordered by their logits, and by their index if the logits are equal. Different
        logits may have equal probabilities in float32: `sigmoid` gives 1 for all logits from 17 on.
        """
        _, classes = tf.math.top_k(logits, count)
        return tf.gather(self.probabilities(logits), classes, batch_dims=1), classes

    def at_chance(self, classes: int) -> float:
        """Returns the loss of a model that gives every class the same probability, 1/classes."""
        if self.name == "softmax":
            return math.log(classes)
        total = math.log(classes) - (classes - 1) * math.log1p(-1 / classes)
        return total / classes if self.mean_over_classes else total


SOFTMAX = Loss()


@dataclasses.dataclass(frozen=True)
class TrainingLoss:
    """Loss of training: a `Loss` of smoothed targets, weighted by class.

    Let a be the label of an image, and b the label of its partner. Let w_a and w_b be the weights
    of these classes, and ℓ_a and ℓ_b the losses for these labels. Then the loss of the mixed image
    is λ w_a ℓ_a + (1 − λ) w_b ℓ_b, where λ is the share of the image. So mixing does not change the
    total weight of a class. If `threshold` is set, both labels may have the target 1; the loss of
    these targets is then multiplied by λ w_a + (1 − λ) w_b.

    Attributes:
      loss: the loss function.
      label_smoothing: s, as in the module's docstring.
      threshold: if set, the target of a mixed label is 1 if its share is above this value, and 0
        otherwise. If None, the target is the share.
      class_weights: w, a factor on the loss, by label. If None, all factors are 1.
    """

    loss: Loss = SOFTMAX
    label_smoothing: float = 0.0
    threshold: float | None = None
    class_weights: Sequence[float] | None = None

    def __call__(self, logits: tf.Tensor, labels: tf.Tensor | MixedLabels) -> tf.Tensor:
        """Returns the losses [b] of logits [b, classes]."""
        if isinstance(labels, MixedLabels):
            return self._mixed(logits, labels)
        losses = self.loss.of_labels(logits, labels, self.label_smoothing)
        return losses if self.class_weights is None else losses * self._weights(labels)

    def _mixed(self, logits: tf.Tensor, mixed: MixedLabels) -> tf.Tensor:
        own, other = mixed.shares, 1 - mixed.shares
        total = None
        if self.class_weights is not None:
            weighted = own * self._weights(mixed.labels), other * self._weights(mixed.partners)
            total = weighted[0] + weighted[1]
            if self.threshold is None:
                own, other = weighted[0] / total, weighted[1] / total
        classes, smoothing = logits.shape[-1], self.label_smoothing
        targets = own[:, None] * tf.one_hot(mixed.labels, classes)
        targets += other[:, None] * tf.one_hot(mixed.partners, classes)
        if self.threshold is not None:
            targets = tf.cast(targets > self.threshold, tf.float32)
        if smoothing:
            targets = (1 - smoothing) * targets + smoothing / classes
        losses = self.loss.of_targets(logits, targets)
        return losses if total is None else losses * total

    def _weights(self, labels: tf.Tensor) -> tf.Tensor:
        return tf.gather(tf.constant(self.class_weights, tf.float32), labels)
