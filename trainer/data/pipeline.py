"""From a position to the micro-batches that follow it: tf.data over a set that is in memory.

A training pipeline has no state but its counter: it is rebuilt in milliseconds at any position, for
any micro-batch size and number of replicas, and what comes at a position is always the same.
"""

import os
from collections.abc import Callable

import tensorflow as tf

from trainer.data.augment import AUGMENTS
from trainer.data.order import example_indices
from trainer.data.sources import Images, as_tensor

# Threads that make micro-batches, a fixed number: a thread that tunes it holds up the end of a
# pipeline by 0.2 to 0.6 s, at every growth, and gains nothing.
_PARALLEL_CALLS = min(16, os.cpu_count() or 1)
_PREFETCH = 4  # micro-batches: hides the jitter of a busy machine, costs 1.6 MB at b = 512, 28×28×1


def training(
    images: Images,
    *,
    augment: str,
    seed: int,
    position: int,
    micro_batch_size: int,
    replicas: int,
    local_replicas: range,
) -> tf.data.Dataset:
    """The micro-batches from `position` on, without end, dealt to this host's replicas in turn.

    Element t is for local replica r = local_replicas[t mod n] at micro-step j = t div n, and holds
    the b consecutive positions from position + (j · replicas + r) · b on.

    Args:
        images: the training set.
        augment: a name in `AUGMENTS`.
        seed: the run's seed.
        position: examples consumed before the first element.
        micro_batch_size: b.
        replicas: over all hosts.
        local_replicas: the indices of the n replicas on this host.

    Returns:
        Elements of (images uint8 [b, h, w, c], labels int32 [b], first position int64 []).
    """
    examples = len(images.labels)
    augmented = AUGMENTS[augment]

    def micro_batch(
        t: tf.Tensor, pixels: tf.Tensor, labels: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        local = len(local_replicas)
        replica = local_replicas.start + t % local * local_replicas.step
        first = position + (t // local * replicas + replica) * micro_batch_size
        positions = first + tf.range(micro_batch_size, dtype=tf.int64)  # [b]
        indices = example_indices(positions, examples, seed)
        selected = augmented(tf.gather(pixels, indices), positions, seed)
        return selected, tf.gather(labels, indices), first

    return _mapped(tf.data.Dataset.counter(), micro_batch, images)


def evaluation(images: Images, *, batch_size: int, shards: int) -> tf.data.Dataset:
    """Every example exactly once, in batches whose number is a multiple of `shards`.

    What is missing from the last batches is filled with the last example at weight 0.

    Args:
        images: the set.
        batch_size: b.
        shards: replicas that the batches are dealt to in turn; each gets as many.

    Returns:
        Elements of (images uint8 [b, h, w, c], labels int32 [b], weights float32 [b], 1 or 0).
    """
    examples = len(images.labels)
    batches = -(-examples // (batch_size * shards)) * shards

    def batch(
        t: tf.Tensor, pixels: tf.Tensor, labels: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        indices = t * batch_size + tf.range(batch_size, dtype=tf.int64)  # [b]
        weights = tf.cast(indices < examples, tf.float32)
        indices = tf.minimum(indices, examples - 1)
        return tf.gather(pixels, indices), tf.gather(labels, indices), weights

    return _mapped(tf.data.Dataset.range(batches), batch, images)


def _mapped(
    counter: tf.data.Dataset, element: Callable[..., tuple[tf.Tensor, ...]], images: Images
) -> tf.data.Dataset:
    """element(t, images uint8 [N, h, w, c], labels int32 [N]) for each t of `counter`, in order."""
    with tf.device("CPU:0"):
        pixels, labels = as_tensor(images.images), tf.constant(images.labels, tf.int32)
    options = tf.data.Options()
    options.deterministic = True
    options.autotune.enabled = False
    # tf.data's graph rewriting would copy into its graph what the function captures, which is the
    # whole set: 0.6 s and 690 MB for 676 MB, where 10 ms and nothing do. Under TensorFlow's
    # op determinism it cannot be turned off.
    options.experimental_optimization.apply_default_optimizations = False
    # The elements are dealt already; TensorFlow's own sharding would deal them again.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return (
        counter.map(
            lambda t: element(t, pixels, labels),
            num_parallel_calls=_PARALLEL_CALLS,
            deterministic=True,
        )
        .prefetch(_PREFETCH)
        .with_options(options)
    )
