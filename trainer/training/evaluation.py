"""Evaluation: every example exactly once, padded to full batches and masked."""

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
from trainer.system.memory import oom_as_user_error

# Examples that a lane takes at once; larger was no faster on two cores.
_BATCH_SIZE = 125
# Signals wait so long for the device.
_SECONDS = 2.0
# An evaluation loss is warned of if it is so many times the training loss, and so many times ln of
# the number of classes, the loss of a model that knows nothing.
_MANY_TIMES, _WORSE_THAN_NOTHING = 10.0, 2.0
_REMEDY = "Use a smaller --image_size, or --precision=bfloat16."


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Means over all examples: loss, and the fractions whose label is in the first 1 or 5."""

    loss: float
    top1: float
    top5: float


def gap_warning(
    evaluation: Evaluation, training_loss: float, classes: int, *, batch_norm: bool
) -> str | None:
    """Returns a warning if the evaluation loss is many times the training loss, else None.

    Args:
      evaluation: made now.
      training_loss: mean over the last updates.
      classes: of the model.
      batch_norm: whether the model has moving statistics that training moves.
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


def evaluator(
    strategy: tf.distribute.Strategy,
    model: Callable[..., tf.Tensor],
    source: InMemoryDataset | IndexedDataset,
    lanes: int = 1,
    augment: str = "none",
    bad: BadExamples | None = None,
    hosts: ProcessGroup | None = None,
) -> Callable[[Callable[[], bool]], Evaluation | None]:
    """A function that evaluates `model`, as it is when called, on all of `source`
    that can be decoded.

    `model` is a Keras model or what is called as one: (images, training=False) → logits.
    It gives up, and returns None, once its argument says on one of `hosts` that the run shall stop;
    it asks about every second. A host takes its share; each of its replicas computes `lanes`
    batches side by side, the chief's number on all hosts.
    """
    hosts = hosts or ProcessGroup()
    # By them the examples are dealt out, and hosts may have more cores or fewer.
    _, (lanes,) = hosts.agree(False, lanes)

    def side_by_side(*batch: tf.Tensor) -> tf.Tensor:
        parts = zip(*(tf.split(values, lanes) for values in batch), strict=True)
        return tf.add_n([sums(*part) for part in parts])

    def sums(batch: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
        logits = model(batch, training=False)  # [b, classes]
        # By index, so that of equal logits one is first: a model that says nothing is not right.
        _, first = tf.math.top_k(logits, min(5, logits.shape[-1]))  # [b, 5]
        right = tf.cast(tf.equal(first, labels[:, None]), tf.float32)
        correct = [right[:, 0], tf.reduce_sum(right, axis=1)]
        count = tf.ones_like(weights)
        values = tf.stack([cross_entropy(logits, labels), *correct, count])  # [4, b]
        # A padded example may have any loss, and inf · 0 is no 0.
        return tf.reduce_sum(tf.where(weights > 0, values, 0.0), axis=1)

    shards, batch_size = strategy.num_replicas_in_sync, lanes * _BATCH_SIZE
    dataset = pipeline.evaluation(
        source,
        batch_size=batch_size,
        shards=shards,
        local_shards=hosts.local(shards),
        augment=augment,
        bad=bad,
    )
    rounds = pipeline.evaluation_batches(source.examples, batch_size, shards) // shards

    @tf.function
    def add(iterator: Any, some: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        for _ in tf.range(some):
            parts = strategy.run(side_by_side, next_per_replica(strategy, iterator))
            part = tf.add_n(strategy.experimental_local_results(parts))
            total += tf.cast(part, tf.float64)
        return total

    def evaluate(stopped: Callable[[], bool]) -> Evaluation | None:
        iterator, total = iter(dataset), tf.zeros([4], tf.float64)
        done, some = 0, 1
        while done < rounds:
            stopping, (some,) = hosts.agree(stopped(), some)
            if stopping:
                return None
            some, start = min(some, rounds - done), time.monotonic()
            # Carried along, so that where it is cut changes no bit.
            with (
                unwrap_user_errors(),
                oom_as_user_error(f"an evaluation of {batch_size} images at a time", _REMEDY),
            ):
                total = add(iterator, tf.constant(some), total)
                total.numpy()  # Waits for the device.
            done += some
            seconds = time.monotonic() - start
            if seconds < _SECONDS / 2:
                some *= 2
            elif seconds > _SECONDS:
                some = max(1, some // 2)
        loss, top1, top5, count = hosts.all_reduce(total.numpy()).tolist()
        if count == 0:
            raise UserError(f"{source.name}: none of {source.examples:,} examples can be used.")
        return Evaluation(loss / count, top1 / count, top5 / count)

    return evaluate
