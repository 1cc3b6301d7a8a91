"""Makes tf.data datasets: of elements from memory, and of the chunks of encoded batches.

AutoGraph converts no function of this folder. Conversions would take seconds at a run's start.
"""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from trainer.data import chunk_decoding
from trainer.data.in_memory import InMemoryDataset, as_tensor
from trainer.system.cores import usable

# Batches to prefetch, in case a busy machine delays one: 1.6 MB if b = 512, 28×28×1.
PREFETCH = 4


def chunks(
    batches: int | None,
    batch_size: int,
    first_of: Callable[[tf.Tensor], tf.Tensor],
    indices_at: Callable[[tf.Tensor], tf.Tensor],
    options: Mapping[str, Any] | None = None,
) -> tf.data.Dataset:
    """Returns the indices and positions of each chunk of `batches` batches; None: endless.

    `first_of` maps t to the first position of batch t; `indices_at` maps positions to indices.
    `options` are arguments of the `Dataset.map` that calls both functions.
    """
    size = chunk_decoding.chunk_size(batch_size)
    count = batch_size // size  # chunks in a batch

    @tf.autograph.experimental.do_not_convert
    def chunk(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        first = first_of(number // count) + number % count * size
        positions = first + tf.range(size, dtype=tf.int64)
        return indices_at(positions), positions

    numbers = tf.data.Dataset.counter()
    return (numbers if batches is None else numbers.take(batches * count)).map(
        chunk, **options or {}
    )


def mapped(
    counter: tf.data.Dataset, element: Callable[..., tuple[Any, ...]], images: InMemoryDataset
) -> tf.data.Dataset:
    """Returns element(t, images uint8 [N, h, w, c], labels int32 [N]) for each t of `counter`."""
    with tf.device("CPU:0"):
        pixels, labels = as_tensor(images.images), tf.constant(images.labels, tf.int32)
    elements = counter.map(
        tf.autograph.experimental.do_not_convert(lambda t: element(t, pixels, labels)),
        num_parallel_calls=min(16, len(usable())),
        deterministic=True,
    )
    return with_options(elements.prefetch(PREFETCH))


def with_options(dataset: tf.data.Dataset, threads: int | None = None) -> tf.data.Dataset:
    """Returns the dataset with a pool of `threads`; None: TensorFlow's pool, a thread per core."""
    options = tf.data.Options()
    if threads is not None:
        options.threading.private_threadpool_size = threads
    options.deterministic = True
    # Autotuning gains nothing. Its thread delays the end of a pipeline by 0.2 to 0.6 s, and each
    # growth of the batch ends a pipeline.
    options.autotune.enabled = False
    # If TensorFlow rewrote tf.data's graph, it would copy all captured images into the graph: for
    # 676 MB, this takes 0.6 s and 690 MB, instead of 10 ms and none. (With op determinism, it
    # rewrites the graph nonetheless.)
    options.experimental_optimization.apply_default_optimizations = False
    # The elements are sharded already, and TensorFlow would shard them again.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options)
