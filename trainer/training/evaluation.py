"""Evaluates a model on each example exactly once.

The last batches are padded to full size. The padding does not change the results.
"""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.data import pipeline
from trainer.data.bad_examples import BadExamples
from trainer.data.host_batches import begin
from trainer.data.in_memory import InMemoryDataset
from trainer.data.indexed import IndexedDataset
from trainer.distributed import hosts
from trainer.distributed.process_group import ProcessGroup
from trainer.distributed.replica_batches import next_per_replica
from trainer.errors import UserError
from trainer.nn.losses import SOFTMAX, Loss
from trainer.nn.user_code import unwrap_user_errors
from trainer.schedule.averaging import EMA, PLAIN
from trainer.system.memory import LESS_TO_EVALUATE, out_of_memory
from trainer.system.tensorflow_errors import translate
from trainer.training import batches
from trainer.training.graph_loop import repeat

# The lanes are equal parts of a batch, which a replica computes in parallel. More examples per lane
# were not faster on two cores.
EXAMPLES_PER_LANE = 125
# Longest intended time of one call of the device, in seconds. An evaluation can only stop between
# two calls.
_SECONDS = 2.0


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Mean loss, top-1 accuracy and top-5 accuracy; the accuracies are fractions from 0 to 1."""

    loss: float
    top1: float
    top5: float


@dataclasses.dataclass(frozen=True)
class Evaluations:
    """Evaluations at one position of a run.

    Attributes:
      plain: evaluation of the parameters as they are.
      ema: evaluation of the average of the parameters; None if the run does not average.
      counts: PLAIN or EMA, the name of the evaluation that is the run's result.
    """

    plain: Evaluation
    ema: Evaluation | None = None
    counts: str = PLAIN

    @property
    def counted(self) -> Evaluation:
        """The evaluation that is the run's result; the controller of the schedule receives it."""
        return self.ema if self.ema and self.counts == EMA else self.plain

    @property
    def mark(self) -> dict[str, str]:
        """Dictionary {"evaluated_with": name of `counted`}; {} if the run does not average."""
        return {"evaluated_with": self.counts} if self.ema else {}


@dataclasses.dataclass(frozen=True)
class Predictions:
    """Predictions for the n usable examples of a split, in the order of the split.

    Attributes:
      indices: int64 [n], number of the example in the split, from 0.
      labels: int64 [n].
      predicted: int64 [n], index of the largest logit.
      confidences: float64 [n], probability of the predicted class, computed in float32.
      losses: float64 [n], loss without label smoothing, computed in float32.
      probabilities: float64 [n], probability of the label, computed in float32.
    """

    indices: np.ndarray
    labels: np.ndarray
    predicted: np.ndarray
    confidences: np.ndarray
    losses: np.ndarray
    probabilities: np.ndarray


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
        loss: Loss = SOFTMAX,
    ) -> None:
        """Prepares the evaluation; each process evaluates its share of the examples.

        Args:
          strategy: distributes the evaluation over the replicas.
          model: a Keras model, or another function (images, training=False) → logits.
          source: the examples.
          lanes: number of equal parts of a batch that a replica computes in parallel. All processes
            use the value that the first process passes.
          augment: value of --augment in training. With imagenet, the central part of each image is
            evaluated.
          bad: records examples that cannot be decoded; if None, such an example is an error.
          group: the processes that evaluate together; None for this process alone.
          loss: the run's loss function, which also turns logits into probabilities.
        """
        self._model, self._strategy, self.source = model, strategy, source
        self._group, self._loss = group or ProcessGroup(), loss
        # All processes must use one number of lanes, because it decides the examples of each.
        _, (self._lanes,) = self._group.agree(False, lanes)
        shards = strategy.num_replicas_in_sync
        self._batch_size = self._lanes * EXAMPLES_PER_LANE
        self._dataset = batches.evaluation(
            *(source, self._batch_size, shards, self._group),
            found=hosts.from_strategy(strategy),
            augment=augment,
            bad=bad,
        )
        count = pipeline.evaluation_batches(source.examples, self._batch_size, shards)
        self._rounds = count // shards
        self._add = tf.function(self._add_rounds, autograph=False)
        # The values that `_measured` returns for each example, from the last evaluation:
        # [rounds, local replicas, 6, b].
        self._example_values: np.ndarray | None = None

    def evaluate(self, should_stop: Callable[[], bool] = lambda: False) -> Evaluation | None:
        """Evaluates the model with its current parameters; returns None if asked to stop.

        Calls `should_stop` about every second. If one process gets True, all processes stop.

        Raises:
          UserError: if no example can be used, or memory runs out.
        """
        iterator, total = begin(self._dataset), tf.zeros([4], tf.float64)
        done, count = 0, 1
        example_values: list[np.ndarray] = []
        self._example_values = None
        what = f"an evaluation of {self._batch_size} images at a time"
        while done < self._rounds:
            stopping, (count,) = self._group.agree(should_stop(), count)
            if stopping:
                return None
            count, start = min(count, self._rounds - done), time.monotonic()
            with (
                unwrap_user_errors(),
                translate(out_of_memory(what, LESS_TO_EVALUATE)),
                hosts.on_first(self._strategy),
            ):
                # Each call continues the previous call's sum, so `count` does not affect rounding.
                total, part = self._add(iterator, tf.constant(count), total)
                example_values.append(part.numpy())  # Waits for the device.
            done += count
            seconds = time.monotonic() - start
            if seconds < _SECONDS / 2:
                count *= 2
            elif seconds > _SECONDS:
                count = max(1, count // 2)
        loss, top1, top5, examples = self._group.all_reduce(total.numpy()).tolist()
        if examples == 0:
            raise UserError(
                f"{self.source.name}: none of {self.source.examples:,} examples can be used."
            )
        self._example_values = np.concatenate(example_values)
        return Evaluation(loss / examples, top1 / examples, top5 / examples)

    def predictions(self) -> Predictions | None:
        """Returns the predictions of the last evaluation, without computing the model again.

        Returns None before the first evaluation, and if the last evaluation was stopped. All
        processes must call this function at the same point, and each process gets the predictions
        of all processes.
        """
        if self._example_values is None:
            return None
        shards = self._strategy.num_replicas_in_sync
        local = self._group.local(shards)
        whole = np.zeros([self._rounds, shards, 6, self._batch_size])
        whole[:, local.start : local.stop] = self._example_values
        whole = self._group.all_reduce(whole.ravel()).reshape(whole.shape)
        # Batch i went to shard i mod `shards`, so transposing restores the order of the split.
        values = whole.transpose(2, 0, 1, 3).reshape(6, -1)  # [6, N + padding]
        used = values[5] > 0
        labels, predicted, confidences, losses, probabilities, _ = values[:, used]
        return Predictions(
            np.flatnonzero(used),
            labels.astype(np.int64),
            predicted.astype(np.int64),
            np.minimum(confidences, 1.0),  # In float32, a softmax may round to 1.0000001.
            losses,
            np.minimum(probabilities, 1.0),
        )

    def _add_rounds(
        self, iterator: Any, rounds: tf.Tensor, total: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Evaluates `rounds` batches on each replica, and adds their sums to `total`.

        Returns the new sums, [loss, top1, top5, examples], and the values per example that
        `_measured` lists, float32 [rounds, local replicas, 6, b].
        """

        def add(
            i: tf.Tensor, total: tf.Tensor, example_values: tf.TensorArray
        ) -> tuple[tf.Tensor, tf.TensorArray]:
            batch = next_per_replica(self._strategy, iterator)
            sums, parts = self._strategy.run(self._in_lanes, batch)
            part = tf.add_n(self._strategy.experimental_local_results(sums))
            local = tf.stack(self._strategy.experimental_local_results(parts))
            return total + tf.cast(part, tf.float64), example_values.write(i, local)

        example_values = tf.TensorArray(tf.float32, size=rounds)
        total, example_values = repeat(rounds, add, total, example_values, parallel_iterations=10)
        return total, example_values.stack()

    def _in_lanes(self, *batch: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        parts = zip(*(tf.split(values, self._lanes) for values in batch), strict=True)
        sums, example_values = zip(*(self._measured(*part) for part in parts), strict=True)
        return tf.add_n(sums), tf.concat(example_values, axis=1)

    def _measured(
        self, images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Returns the sums [loss, top1, top5, examples] over the examples of positive weight.

        Also returns six values of each example, [6, b]: label, prediction, confidence, loss,
        probability of the label, and weight.
        """
        logits = self._model(images, training=False)  # [b, classes]
        # Among equal logits, top_k ranks the lowest index first, so only one class is predicted.
        _, first = tf.math.top_k(logits, min(5, logits.shape[-1]))  # [b, 5]
        right = tf.cast(tf.equal(first, labels[:, None]), tf.float32)
        correct = [right[:, 0], tf.reduce_sum(right, axis=1)]
        losses = self._loss.of_labels(logits, labels)
        values = tf.stack([losses, *correct, tf.ones_like(weights)])  # [4, b]
        # `where` also removes an infinite loss of padding. Its product with 0 would be nan.
        sums = tf.reduce_sum(tf.where(weights > 0, values, 0.0), axis=1)
        probabilities = self._loss.probabilities(logits)
        confidences = tf.reduce_max(probabilities, axis=1)
        of_label = tf.gather(probabilities, labels, axis=1, batch_dims=1)
        # float32 represents each class index below 2²⁴ exactly.
        indices = tf.cast(tf.stack([labels, first[:, 0]]), tf.float32)
        rest = tf.stack([confidences, losses, of_label, weights])
        return sums, tf.concat([indices, rest], axis=0)
