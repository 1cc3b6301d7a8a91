"""Input pipelines: micro-batches from a position on, from memory or from encoded files.

A training pipeline has no state except its counter. It is rebuilt in milliseconds at any position,
for any micro-batch size and number of replicas, and the example at a position is always the same.
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
# Micro-batches: hides the jitter of a busy machine, and costs 1.6 MB at b = 512, 28×28×1.
_PREFETCH = 4
# Replacements that are tried for a bad example before the run ends.
_REPLACEMENTS = 100


@dataclasses.dataclass(frozen=True)
class ExampleStream:
    """Endless stream of training examples; what is at a position depends on these values alone.

    Attributes:
      source: the training set.
      augment: a name in `AUGMENTS`, or imagenet for encoded examples.
      seed: seed of the run.
      bad: records the examples that cannot be decoded; None: they are errors.
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
    """Returns an endless dataset of micro-batches from `position` on, for local replicas in turn.

    Element t is for local replica r = local_replicas[t mod n] at micro-step j = t div n. It holds
    the b consecutive positions from position + (j · replicas + r) · b on.

    Args:
        stream: the examples.
        position: examples consumed before the first element.
        micro_batch_size: b.
        replicas: number of replicas of all processes.
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
    """Returns the dataset of `training` from encoded examples.

    `indices_at` returns the indices at positions; `first_of` the first position of element t.
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
    """Returns each example exactly once, in batches whose number is a multiple of `shards`.

    Batch i is for shard i mod `shards`; the elements are the batches of this process's shards in
    turn. The last batches are padded with the last example at weight 0. Examples that cannot be
    decoded are black, at weight 0.

    Args:
        source: the examples.
        batch_size: b.
        shards: number of replicas of all processes; each gets the same number of batches.
        local_shards: indices of this process's shards; None: all.
        augment: of the training set; after imagenet's crops, the central part is evaluated.
        bad: records the examples that cannot be decoded; None: they are errors.

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
    """Returns the number of batches of `evaluation` for all shards."""
    return -(-examples // (batch_size * shards)) * shards


def _encoded_evaluation(
    source: IndexedDataset,
    batch_size: int,
    batches: int,
    number_of: Callable[[tf.Tensor], tf.Tensor],
    augment: str,
    bad: BadExamples | None,
) -> tf.data.Dataset:
    """Returns the dataset of `evaluation` from encoded examples, with `batches` elements.

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
    # The number of threads is fixed. A thread that tunes it gains nothing, and delays the end of a
    # pipeline by 0.2 to 0.6 s, at every growth.
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
    """Returns the dataset with `threads` of its own; None: TensorFlow's, one a core."""
    options = tf.data.Options()
    if threads is not None:
        options.threading.private_threadpool_size = threads
    options.deterministic = True
    options.autotune.enabled = False
    # tf.data's graph rewriting would copy the captured images, the whole set, into its graph: 0.6 s
    # and 690 MB for 676 MB, in place of 10 ms and 0. Under op determinism it cannot be turned off.
    options.experimental_optimization.apply_default_optimizations = False
    # The elements are sharded already; TensorFlow's own sharding would shard them again.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options)
