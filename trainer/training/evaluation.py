"""Evaluation: each example exactly once; the last batches are padded, and padding is masked."""

import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from trainer.data import pipeline
from trainer.data.bad_examples import BadExamples
from trainer.data.in_memory import InMemoryDataset
from trainer.data.indexed import IndexedDataset
from trainer.distributed.process_group import ProcessGroup
from trainer.distributed.strategy import next_per_replica
from trainer.errors import UserError
from trainer.nn.losses import cross_entropy
from trainer.nn.user_code import unwrap_user_errors
from trainer.system.memory import out_of_memory
from trainer.system.tensorflow_errors import translate

# Examples that a lane takes at once; larger batches were not faster on two cores.
_BATCH_SIZE = 125
# After a signal, the evaluation stops within about this time.
_SECONDS = 2.0
# The program warns if the evaluation loss is at least _MANY_TIMES the training loss, and at least
# _WORSE_THAN_NOTHING times ln(classes), the loss of equal logits.
_MANY_TIMES, _WORSE_THAN_NOTHING = 10.0, 2.0
_REMEDY = "Use a smaller --image_size, or --precision=bfloat16."


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Mean loss, and fractions of examples whose label is among the first 1 or 5 logits."""

    loss: float
    top1: float
    top5: float


def gap_warning(
    evaluation: Evaluation, training_loss: float, classes: int, *, batch_norm: bool
) -> str | None:
    """Returns a warning if the evaluation loss is many times the training loss, else None.

    Args:
      evaluation: the last evaluation.
      training_loss: mean training loss of the last stretch.
      classes: number of the model's logits.
      batch_norm: whether training updates moving statistics of the model.
    """
    loss = evaluation.loss
    nothing = _WORSE_THAN_NOTHING * math.log(max(2, classes))
    if loss < _MANY_TIMES * training_loss or loss < nothing:
        return None
    reason = (
        "the moving statistics of batch normalization lag behind parameters that change fast: "
        "lower the learning rate, or train for more epochs"
        if batch_norm
        else "the model fits the training images alone, or the two splits differ in their images "
        "or classes"
    )
    times = loss / training_loss if training_loss else math.inf
    return (
        f"the evaluation loss, {loss:.4g}, is {times:.0f} times the training loss, "
        f"{training_loss:.4g}; likely, {reason}."
    )


class Evaluator:
    """Evaluates one model on one set of examples, any number of times."""

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        model: Callable[..., tf.Tensor],
        source: InMemoryDataset | IndexedDataset,
        lanes: int = 1,
        augment: str = "none",
        bad: BadExamples | None = None,
        group: ProcessGroup | None = None,
    ) -> None:
        """Prepares the evaluation; each process evaluates its share of the examples.

        Args:
          strategy: distributes the evaluation over the replicas.
          model: a Keras model, or a function with the same call: (images, training=False) → logits.
          source: the examples; those that cannot be decoded do not count.
          lanes: number of batches that a replica computes in parallel; the chief's number is used.
          augment: augmentation in training; after imagenet's crops, the central part is evaluated.
          bad: records examples that cannot be decoded; if None, such an example is an error.
          group: the processes that evaluate together; if None, this process evaluates alone.
        """
        self._model, self._strategy, self._source = model, strategy, source
        self._group = group or ProcessGroup()
        # Lanes decide which examples a process evaluates, and numbers of cores may differ.
        _, (self._lanes,) = self._group.agree(False, lanes)
        shards = strategy.num_replicas_in_sync
        self._batch_size = self._lanes * _BATCH_SIZE
        self._dataset = pipeline.evaluation(
            source,
            batch_size=self._batch_size,
            shards=shards,
            local_shards=self._group.local(shards),
            augment=augment,
            bad=bad,
        )
        batches = pipeline.evaluation_batches(source.examples, self._batch_size, shards)
        self._rounds = batches // shards
        self._add = tf.function(self._add_rounds)

    def evaluate(self, should_stop: Callable[[], bool] = lambda: False) -> Evaluation | None:
        """Evaluates the model with its current parameters.

        Returns None if `should_stop`, which is called about every second, is true in any process.

        Raises:
          UserError: if no example can be used, or memory runs out.
        """
        iterator, total = iter(self._dataset), tf.zeros([4], tf.float64)
        done, count = 0, 1
        what = f"an evaluation of {self._batch_size} images at a time"
        while done < self._rounds:
            stopping, (count,) = self._group.agree(should_stop(), count)
            if stopping:
                return None
            count, start = min(count, self._rounds - done), time.monotonic()
            with unwrap_user_errors(), translate(out_of_memory(what, _REMEDY)):
                # One running total makes the result independent of the rounds per call.
                total = self._add(iterator, tf.constant(count), total)
                total.numpy()  # Waits for the device.
            done += count
            seconds = time.monotonic() - start
            if seconds < _SECONDS / 2:
                count *= 2
            elif seconds > _SECONDS:
                count = max(1, count // 2)
        loss, top1, top5, examples = self._group.all_reduce(total.numpy()).tolist()
        if examples == 0:
            name, n = self._source.name, self._source.examples
            raise UserError(f"{name}: none of {n:,} examples can be used.")
        return Evaluation(loss / examples, top1 / examples, top5 / examples)

    def _add_rounds(self, iterator: Any, rounds: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        """Adds each replica's next batches to `total`, the sums [loss, top1, top5, examples]."""
        for _ in tf.range(rounds):
            batch = next_per_replica(self._strategy, iterator)
            parts = self._strategy.run(self._side_by_side, batch)
            part = tf.add_n(self._strategy.experimental_local_results(parts))
            total += tf.cast(part, tf.float64)
        return total

    def _side_by_side(self, *batch: tf.Tensor) -> tf.Tensor:
        parts = zip(*(tf.split(values, self._lanes) for values in batch), strict=True)
        return tf.add_n([self._sums(*part) for part in parts])

    def _sums(self, images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        """Returns the sums of loss, top1, top5 and 1 over the examples of weight 1, [4]."""
        logits = self._model(images, training=False)  # [b, classes]
        # Equal logits are ranked by index, so that a model of equal logits is not always right.
        _, first = tf.math.top_k(logits, min(5, logits.shape[-1]))  # [b, 5]
        right = tf.cast(tf.equal(first, labels[:, None]), tf.float32)
        correct = [right[:, 0], tf.reduce_sum(right, axis=1)]
        count = tf.ones_like(weights)
        values = tf.stack([cross_entropy(logits, labels), *correct, count])  # [4, b]
        # The loss of a padded example may be infinite, and inf · 0 is not 0.
        return tf.reduce_sum(tf.where(weights > 0, values, 0.0), axis=1)
