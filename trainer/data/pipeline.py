"""Builds input pipelines for training and evaluation, from images in memory or encoded files.

The position of an example is the number of examples that the run consumes before it. A micro-batch
has the examples that one replica takes through one forward and backward pass. A training pipeline
has no state except a counter. So it can be rebuilt in milliseconds for any position, micro-batch
size and number of replicas. The example at a position is always the same.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from trainer.config.augment_list import Augmentation
from trainer.config.run_flags import NEWEST_ORDER
from trainer.data import augment_policies, chunk_decoding, decode
from trainer.data.augment import augmenter
from trainer.data.bad_examples import BadExamples
from trainer.data.datasets import PREFETCH, chunks, mapped, with_options
from trainer.data.in_memory import InMemoryDataset
from trainer.data.indexed import IndexedDataset
from trainer.data.mixing import Mixing, mix
from trainer.data.shuffle import example_indices
from trainer.nn.losses import MixedLabels
from trainer.nn.splitmix64 import further_bits, random_bits

_REPLACEMENTS = 100  # Number of replacements to try for a bad example. If all fail, the run ends.


@dataclasses.dataclass(frozen=True)
class ExampleStream:
    """Values that decide the training example at each position.

    Attributes:
      source: the training set.
      augment: augmentation of the examples; a resized crop needs encoded examples.
      seed: seed of the run.
      bad: records the examples that cannot be decoded; None: such an example is an error.
      order_version: version of the order of examples, as in `shuffle`; not used if `order` is set.
      order: function from positions to indices, both int64 [n]; None: the order of `shuffle`, in
        which each epoch has each example once.
      mixing: settings of mixup and cutmix, which mix augmented images; None: images are not mixed.
    """

    source: InMemoryDataset | IndexedDataset
    augment: Augmentation
    seed: int
    bad: BadExamples | None = None
    order_version: int = NEWEST_ORDER
    order: Callable[[tf.Tensor], tf.Tensor] | None = None
    mixing: Mixing | None = None

    def __post_init__(self) -> None:
        """Raises a UserError if the augmentation cannot use the images."""
        augment_policies.check(self.augment, self.source.image_shape, self.source.name)


def training(
    stream: ExampleStream,
    *,
    position: int,
    micro_batch_size: int,
    replicas: int,
    local_replicas: range,
    image_size: int | None = None,
) -> tf.data.Dataset:
    """Returns an endless dataset of micro-batches for the local replicas in turn.

    In a micro-step, each replica of all processes takes one micro-batch of b examples. This process
    has n local replicas. Element t is for replica r = local_replicas[t mod n] in micro-step
    j = t div n. Element t has the examples at b consecutive positions. The first of these positions
    is position + (j · replicas + r) · b.

    Args:
        stream: the examples.
        position: position of the first example of micro-step 0.
        micro_batch_size: b, the number of examples in a micro-batch.
        replicas: number of replicas over all processes.
        local_replicas: indices of the n replicas of this process.
        image_size: side, in pixels, of the square to which images are resized before they are
            augmented; None: the images have the shape of the stream's source.

    Returns:
        Elements of (images uint8 [b, h, w, c], labels int32 [b] or MixedLabels, first position
        int64 []).
    """
    source, seed = stream.source, stream.seed

    def indices_at(positions: tf.Tensor) -> tf.Tensor:
        if stream.order:
            return stream.order(positions)
        return example_indices(positions, source.examples, seed, stream.order_version)

    def first_of(t: tf.Tensor) -> tf.Tensor:
        local = len(local_replicas)
        replica = local_replicas.start + t % local * local_replicas.step
        return position + (t // local * replicas + replica) * micro_batch_size

    shape = source.image_shape
    if image_size is not None:
        shape = (image_size, image_size, shape[-1])
    if isinstance(source, IndexedDataset):
        source = dataclasses.replace(source, image_shape=shape)
        return _encoded_training(stream, source, indices_at, first_of, micro_batch_size)
    resizes = shape != source.image_shape
    augmented = augmenter(stream.augment)

    def micro_batch(
        t: tf.Tensor, pixels: tf.Tensor, labels: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor | MixedLabels, tf.Tensor]:
        first = first_of(t)
        positions = first + tf.range(micro_batch_size, dtype=tf.int64)  # [b]
        indices = indices_at(positions)
        selected = tf.gather(pixels, indices)
        if resizes:
            selected = decode.resized(selected, shape[:2])
        selected = augmented(selected, positions, seed)
        return *mix(selected, tf.gather(labels, indices), first, stream.mixing, seed), first

    return mapped(tf.data.Dataset.counter(), micro_batch, source)


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
    seed, shape, augmented = stream.seed, source.image_shape, augmenter(stream.augment)

    def pixels(encoded: tf.Tensor, orientation: tf.Tensor | None, position: tf.Tensor) -> tf.Tensor:
        if not stream.augment.resized_crop:
            return decode.whole(encoded, shape, orientation, source.max_pixels)
        bits = random_bits(position[None], seed)[0]
        return decode.random_crop(encoded, bits, shape, orientation, source.max_pixels)

    def replacements(position: int) -> list[int]:
        bits = further_bits(random_bits(tf.constant([position], tf.int64), seed), _REPLACEMENTS)
        return [int(word) % source.examples for word in bits[0].numpy()]

    @tf.autograph.experimental.do_not_convert
    def finished(
        images: tf.Tensor, labels: tf.Tensor, _: tf.Tensor, positions: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor | MixedLabels, tf.Tensor]:
        images, first = augmented(images, positions, seed), positions[0]
        return *mix(images, labels, first, stream.mixing, seed), first

    # Several threads compute `stream.order`. One thread computes the order of `shuffle`, because
    # this takes less time than starting several threads.
    parallel = {"num_parallel_calls": chunk_decoding.threads(), "deterministic": True}
    places = chunks(None, micro_batch_size, first_of, indices_at, parallel if stream.order else {})
    bad = stream.bad or BadExamples(skip=False)
    decoded = chunk_decoding.decoded(source, places, pixels, bad, replacements)
    # Several threads augment and mix if this takes long. Crop and flip alone take less time than
    # starting a thread.
    asked = stream.augment
    slow = asked.policy or asked.erasing or asked.strong or stream.mixing
    options = {**parallel, "num_parallel_calls": PREFETCH} if slow else {}
    batches = decoded.rebatch(micro_batch_size, drop_remainder=True).map(finished, **options)
    return with_options(batches.prefetch(PREFETCH), chunk_decoding.threads())


def evaluation(
    source: InMemoryDataset | IndexedDataset,
    *,
    batch_size: int,
    shards: int,
    local_shards: range | None = None,
    augment: str = "none",
    bad: BadExamples | None = None,
) -> tf.data.Dataset:
    """Returns the batches of an evaluation for this process's shards in turn.

    A shard is the part of the batches that one replica evaluates. Batch i is for shard i mod
    `shards`. All shards together have each example once. Each shard has the same number of batches.
    Copies of the last example, with weight 0, fill the last batches. If `bad` skips bad examples,
    an example that cannot be decoded becomes a black image with weight 0.

    Args:
        source: the examples.
        batch_size: b, the number of examples in a batch.
        shards: number of shards over all processes.
        local_shards: indices of this process's shards; None: all shards.
        augment: the run's --augment; with imagenet, the central crop is evaluated.
        bad: records the examples that cannot be decoded; None: such an example is an error.

    Returns:
        Elements of (images uint8 [b, h, w, c], labels int32 [b], weights float32 [b], 1 or 0).
    """
    local = range(shards) if local_shards is None else local_shards
    batches = evaluation_batches(source.examples, batch_size, shards) // shards * len(local)

    def first_of(t: tf.Tensor) -> tf.Tensor:
        return (t // len(local) * shards + local.start + t % len(local) * local.step) * batch_size

    if isinstance(source, IndexedDataset):
        return _encoded_evaluation(source, batch_size, batches, first_of, augment, bad)

    def batch(
        t: tf.Tensor, pixels: tf.Tensor, labels: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        indices = first_of(t) + tf.range(batch_size, dtype=tf.int64)  # [b]
        weights = tf.cast(indices < source.examples, tf.float32)
        indices = tf.minimum(indices, source.examples - 1)
        return tf.gather(pixels, indices), tf.gather(labels, indices), weights

    return mapped(tf.data.Dataset.range(batches), batch, source)


def evaluation_batches(examples: int, batch_size: int, shards: int) -> int:
    """Returns the number of batches of an evaluation, summed over all shards."""
    return -(-examples // (batch_size * shards)) * shards


def evaluated(
    source: InMemoryDataset | IndexedDataset, indices: Sequence[int], augment: str
) -> np.ndarray:
    """Returns the images at `indices` as an evaluation passes them to the model.

    Returns:
        uint8 [n, h, w, c]; an image that can no longer be decoded is black.
    """
    if isinstance(source, InMemoryDataset):
        return source.images[list(indices)]
    bad, count = BadExamples(skip=True), len(indices)
    batches = evaluation(source.at(indices), batch_size=count, shards=1, augment=augment, bad=bad)
    return next(batches.as_numpy_iterator())[0]


def _encoded_evaluation(
    source: IndexedDataset,
    batch_size: int,
    batches: int,
    first_of: Callable[[tf.Tensor], tf.Tensor],
    augment: str,
    bad: BadExamples | None,
) -> tf.data.Dataset:
    """Returns the dataset of `evaluation` for encoded examples, with `batches` elements.

    `first_of` maps t to the first index of element t. Indices past the last example are padding.
    """
    part = decode.for_evaluation(augment)

    def pixels(encoded: tf.Tensor, orientation: tf.Tensor | None, _: tf.Tensor) -> tf.Tensor:
        return part(encoded, source.image_shape, orientation, source.max_pixels)

    @tf.autograph.experimental.do_not_convert
    def finished(
        images: tf.Tensor, labels: tf.Tensor, weights: tf.Tensor, indices: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        return images, labels, tf.where(indices < source.examples, weights, 0.0)

    places = chunks(batches, batch_size, first_of, lambda i: tf.minimum(i, source.examples - 1))
    decoded = chunk_decoding.decoded(source, places, pixels, bad or BadExamples(skip=False), None)
    batched = decoded.rebatch(batch_size, drop_remainder=True).map(finished)
    return with_options(batched.prefetch(PREFETCH), chunk_decoding.threads())
