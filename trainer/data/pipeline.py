"""Builds input pipelines: micro-batches that start at a position, from memory or encoded files.

A training pipeline has no state except its counter. It can be rebuilt in milliseconds at any
position, micro-batch size and number of replicas; the example at a position is always the same.
"""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

from trainer.config.run_flags import NEWEST_ORDER
from trainer.data import chunk_decoding, decode
from trainer.data.augment import AUGMENTS, none
from trainer.data.bad_examples import BadExamples
from trainer.data.in_memory import InMemoryDataset, as_tensor
from trainer.data.indexed import IndexedDataset
from trainer.data.shuffle import example_indices
from trainer.nn.splitmix64 import further_bits, random_bits
from trainer.system.cores import usable

_MOST_PARALLEL_CALLS = 16
# Micro-batches to prefetch: hides jitter of a busy machine; takes 1.6 MB if b = 512, 28×28×1.
_PREFETCH = 4
# Number of replacements to try for a bad example before the run ends.
_REPLACEMENTS = 100


@dataclasses.dataclass(frozen=True)
class ExampleStream:
    """Endless stream of training examples; these values decide the example at each position.

    Attributes:
      source: the training set.
      augment: a name in `AUGMENTS`, or imagenet for encoded examples.
      seed: seed of the run.
      bad: records the examples that cannot be decoded; None: such an example is an error.
      order_version: version of the run's order of examples.
    """

    source: InMemoryDataset | IndexedDataset
    augment: str
    seed: int
    bad: BadExamples | None = None
    order_version: int = NEWEST_ORDER


def training(
    stream: ExampleStream,
    *,
    position: int,
    micro_batch_size: int,
    replicas: int,
    local_replicas: range,
) -> tf.data.Dataset:
    """Returns an endless dataset of micro-batches for the local replicas in turn.

    Element t is for replica r = local_replicas[t mod n] at micro-step j = t div n. It holds b
    consecutive positions, of which the first is position + (j · replicas + r) · b.

    Args:
        stream: the examples.
        position: examples consumed before the first element.
        micro_batch_size: b.
        replicas: number of replicas over all processes.
        local_replicas: indices of the n replicas of this process.

    Returns:
        Elements of (images uint8 [b, h, w, c], labels int32 [b], first position int64 []).
    """
    source, seed = stream.source, stream.seed

    def indices_at(positions: tf.Tensor) -> tf.Tensor:
        return example_indices(positions, source.examples, seed, stream.order_version)

    def first_of(t: tf.Tensor) -> tf.Tensor:
        local = len(local_replicas)
        replica = local_replicas.start + t % local * local_replicas.step
        return position + (t // local * replicas + replica) * micro_batch_size

    if isinstance(source, IndexedDataset):
        return _encoded_training(stream, source, indices_at, first_of, micro_batch_size)
    augmented = AUGMENTS[stream.augment]

    def micro_batch(
        t: tf.Tensor, pixels: tf.Tensor, labels: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        first = first_of(t)
        positions = first + tf.range(micro_batch_size, dtype=tf.int64)  # [b]
        indices = indices_at(positions)
        selected = augmented(tf.gather(pixels, indices), positions, seed)
        return selected, tf.gather(labels, indices), first

    return _mapped(tf.data.Dataset.counter(), micro_batch, source)


def _encoded_training(
    stream: ExampleStream,
    source: IndexedDataset,
    indices_at: Callable[[tf.Tensor], tf.Tensor],
    first_of: Callable[[tf.Tensor], tf.Tensor],
    micro_batch_size: int,
) -> tf.data.Dataset:
    """Returns the dataset of `training` for encoded examples.

    `indices_at` maps positions to indices; `first_of` maps t to the first position of element t.
    """
    augment, seed, bad = stream.augment, stream.seed, stream.bad
    shape, chunk = source.image_shape, chunk_decoding.chunk_size(micro_batch_size)
    chunks = micro_batch_size // chunk
    augmented = AUGMENTS.get(augment, none)

    def place(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        first = first_of(number // chunks) + number % chunks * chunk
        positions = first + tf.range(chunk, dtype=tf.int64)
        return indices_at(positions), positions

    def pixels(encoded: tf.Tensor, orientation: tf.Tensor | None, position: tf.Tensor) -> tf.Tensor:
        if augment != "imagenet":
            return decode.whole(encoded, shape, orientation, source.max_pixels)
        bits = random_bits(position[None], seed)[0]
        return decode.random_crop(encoded, bits, shape, orientation, source.max_pixels)

    def replacements(position: int) -> list[int]:
        bits = further_bits(random_bits(tf.constant([position], tf.int64), seed), _REPLACEMENTS)
        return [int(word) % source.examples for word in bits[0].numpy()]

    def finished(
        images: tf.Tensor, labels: tf.Tensor, _: tf.Tensor, positions: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return augmented(images, positions, seed), labels, positions

    def joined(
        images: tf.Tensor, labels: tf.Tensor, positions: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """[chunks, chunk, ...] → [b, ...]."""
        return (
            tf.reshape(images, [micro_batch_size, *shape]),
            tf.reshape(labels, [micro_batch_size]),
            positions[0, 0],
        )

    places = tf.data.Dataset.counter().map(place)
    parts = chunk_decoding.decoded(
        source, places, pixels, bad or BadExamples(skip=False), replacements
    )
    batches = parts.map(finished).batch(chunks, drop_remainder=True).map(joined)
    return _with_options(batches.prefetch(_PREFETCH), chunk_decoding.threads())


def evaluation(
    source: InMemoryDataset | IndexedDataset,
    *,
    batch_size: int,
    shards: int,
    local_shards: range | None = None,
    augment: str = "none",
    bad: BadExamples | None = None,
) -> tf.data.Dataset:
    """Returns each example once, in batches whose total number is a multiple of `shards`.

    Batch i is for shard i mod `shards`; the elements are the batches of this process's shards in
    turn. The last example, with weight 0, pads the last batches. An example that cannot be decoded
    becomes black with weight 0.

    Args:
        source: the examples.
        batch_size: b.
        shards: number of replicas over all processes; each gets the same number of batches.
        local_shards: indices of this process's shards; None: all shards.
        augment: augmentation of the training set; with imagenet, the central crop is evaluated.
        bad: records the examples that cannot be decoded; None: such an example is an error.

    Returns:
        Elements of (images uint8 [b, h, w, c], labels int32 [b], weights float32 [b], 1 or 0).
    """
    local = range(shards) if local_shards is None else local_shards
    batches = evaluation_batches(source.examples, batch_size, shards) // shards * len(local)

    def number_of(t: tf.Tensor) -> tf.Tensor:
        return t // len(local) * shards + local.start + t % len(local) * local.step

    if isinstance(source, IndexedDataset):
        return _encoded_evaluation(source, batch_size, batches, number_of, augment, bad)

    def batch(
        t: tf.Tensor, pixels: tf.Tensor, labels: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        indices = number_of(t) * batch_size + tf.range(batch_size, dtype=tf.int64)  # [b]
        weights = tf.cast(indices < source.examples, tf.float32)
        indices = tf.minimum(indices, source.examples - 1)
        return tf.gather(pixels, indices), tf.gather(labels, indices), weights

    return _mapped(tf.data.Dataset.range(batches), batch, source)


def evaluation_batches(examples: int, batch_size: int, shards: int) -> int:
    """Returns the number of batches of `evaluation` over all shards."""
    return -(-examples // (batch_size * shards)) * shards


def _encoded_evaluation(
    source: IndexedDataset,
    batch_size: int,
    batches: int,
    number_of: Callable[[tf.Tensor], tf.Tensor],
    augment: str,
    bad: BadExamples | None,
) -> tf.data.Dataset:
    """Returns the dataset of `evaluation` for encoded examples, with `batches` elements.

    `number_of` returns the index of element t among the batches of all shards.
    """
    shape, chunk = source.image_shape, chunk_decoding.chunk_size(batch_size)
    chunks = batch_size // chunk
    part = decode.central_crop if augment == "imagenet" else decode.whole

    def place(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        first = number_of(number // chunks) * batch_size + number % chunks * chunk
        indices = first + tf.range(chunk, dtype=tf.int64)
        return tf.minimum(indices, source.examples - 1), indices

    def joined(
        images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, indices: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """[chunks, chunk, ...] → [b, ...]."""
        weights = tf.where(indices < source.examples, weights, 0.0)
        flat = tf.reshape(images, [batch_size, *shape])
        return flat, tf.reshape(labels, [batch_size]), tf.reshape(weights, [batch_size])

    places = tf.data.Dataset.range(batches * chunks).map(place)
    parts = chunk_decoding.decoded(
        source,
        places,
        lambda encoded, orientation, _: part(encoded, shape, orientation, source.max_pixels),
        bad or BadExamples(skip=False),
        None,
    )
    batched = parts.batch(chunks, drop_remainder=True).map(joined)
    return _with_options(batched.prefetch(_PREFETCH), chunk_decoding.threads())


def _mapped(
    counter: tf.data.Dataset, element: Callable[..., tuple[tf.Tensor, ...]], images: InMemoryDataset
) -> tf.data.Dataset:
    """Returns element(t, images uint8 [N, h, w, c], labels int32 [N]) for each t of `counter`."""
    # The number of threads is fixed, because autotuning gains nothing. Its thread delays the end of
    # a pipeline by 0.2 to 0.6 s, and each growth of the batch ends a pipeline.
    parallel_calls = min(_MOST_PARALLEL_CALLS, len(usable()))
    with tf.device("CPU:0"):
        pixels, labels = as_tensor(images.images), tf.constant(images.labels, tf.int32)
    return _with_options(
        counter.map(
            lambda t: element(t, pixels, labels),
            num_parallel_calls=parallel_calls,
            deterministic=True,
        ).prefetch(_PREFETCH)
    )


def _with_options(dataset: tf.data.Dataset, threads: int | None = None) -> tf.data.Dataset:
    """Returns the dataset with a pool of `threads`; None: TensorFlow's, one thread per core."""
    options = tf.data.Options()
    if threads is not None:
        options.threading.private_threadpool_size = threads
    options.deterministic = True
    options.autotune.enabled = False
    # Rewriting tf.data's graph would copy the whole set of captured images into it: for 676 MB this
    # takes 0.6 s and 690 MB, instead of 10 ms and none. Op determinism forces the rewriting.
    options.experimental_optimization.apply_default_optimizations = False
    # The elements are sharded already, and TensorFlow's sharding would shard them again.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options)
