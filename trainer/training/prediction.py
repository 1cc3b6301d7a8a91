"""Predicts the most probable classes of pictures.

Pictures are decoded as in an evaluation, and the last batches are padded to full size.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.data import pipeline
from trainer.data.bad_examples import BadExamples
from trainer.data.indexed import IndexedDataset
from trainer.distributed.replica_batches import next_per_replica
from trainer.nn.losses import SOFTMAX, Loss
from trainer.nn.user_code import unwrap_user_errors
from trainer.system.memory import out_of_memory
from trainer.system.tensorflow_errors import translate
from trainer.training.evaluation import EXAMPLES_PER_LANE


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions:
    """The k most probable classes of each of n pictures.

    Attributes:
      indices: int64 [n], indices of the pictures in their source, ascending.
      classes: int32 [n, k], indices of the k largest logits, largest first. Equal logits are in
        ascending order of their indices.
      probabilities: float32 [n, k], probabilities of `classes`.
      end: number of pictures processed so far, including those that cannot be decoded.
    """

    indices: np.ndarray
    classes: np.ndarray
    probabilities: np.ndarray
    end: int

    def lists(self) -> tuple[list[int], list[list[int]], list[list[float]]]:
        """Returns indices, classes and probabilities as lists of Python numbers."""
        return self.indices.tolist(), self.classes.tolist(), self.probabilities.tolist()


def predict(
    strategy: tf.distribute.Strategy,
    model: Callable[..., tf.Tensor],
    source: IndexedDataset,
    top_k: int,
    *,
    lanes: int = 1,
    augment: str = "none",
    bad: BadExamples,
    loss: Loss = SOFTMAX,
) -> Iterator[Predictions]:
    """Yields the predictions for consecutive pictures.

    Each item has the predictions for one batch of every replica. A picture that cannot be decoded
    has no prediction.

    Args:
      strategy: distributes the pictures over the replicas.
      model: a function (images, training=False) → logits.
      source: the pictures.
      top_k: k, at most the number of logits.
      lanes: number of equal parts of a batch that a replica computes in parallel.
      augment: value of --augment in training. With imagenet, the model gets the central part of
        each picture.
      bad: records the pictures that cannot be decoded; `bad.skip` must be True.
      loss: the run's loss function, which turns logits into probabilities.

    Raises:
      UserError: if memory runs out.
    """
    replicas = strategy.num_replicas_in_sync
    share = -(-source.examples // replicas)
    # If there are few pictures, the batch is smaller, because padding takes as long as pictures.
    lanes = min(lanes, share)
    batch_size = lanes * min(EXAMPLES_PER_LANE, -(-share // lanes))
    dataset = pipeline.evaluation(
        source, batch_size=batch_size, shards=replicas, augment=augment, bad=bad
    )
    compute, iterator = _compute(strategy, model, lanes, top_k, loss), iter(dataset)
    what = f"a prediction for {batch_size} images at a time"
    remedy = "Use a smaller --eval_image_size, or --precision=bfloat16."
    for first in range(0, source.examples, batch_size * replicas):
        with unwrap_user_errors(), translate(out_of_memory(what, remedy)):
            probabilities, classes, weights = (each.numpy() for each in compute(iterator))
        (good,) = np.nonzero(weights > 0)
        end = min(first + batch_size * replicas, source.examples)
        yield Predictions(first + good, classes[good], probabilities[good], end)


def _compute(
    strategy: tf.distribute.Strategy,
    model: Callable[..., tf.Tensor],
    lanes: int,
    top_k: int,
    loss: Loss,
) -> Callable[[Any], list[tf.Tensor]]:
    """Returns a function that takes a batch for each replica from an iterator, and predicts.

    The function returns probabilities [n, k], indices of logits [n, k] and weights [n]. A weight is
    0 for padding and for a picture that cannot be decoded, otherwise 1.
    """

    def in_lane(images: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return loss.most_probable(model(images, training=False), top_k)

    def in_lanes(
        images: tf.Tensor, _: tf.Tensor, weights: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        parts = [in_lane(part) for part in tf.split(images, lanes)]
        probabilities, classes = (tf.concat(each, axis=0) for each in zip(*parts, strict=True))
        return probabilities, classes, weights

    def compute(iterator: Any) -> list[tf.Tensor]:
        found = strategy.run(in_lanes, next_per_replica(strategy, iterator))
        return [tf.concat(strategy.experimental_local_results(each), axis=0) for each in found]

    return tf.function(compute, autograph=False)
