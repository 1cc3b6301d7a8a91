"""Makes tf.data datasets: of batches, for examples in memory; of indices, for encoded examples.

AutoGraph is off for the functions in trainer/data, because its conversions would take seconds at
a run's start.
"""

from collections.abc import Callable, Mapping
from typing import Any

import tensorflow as tf

from trainer.data import chunk_decoding
from trainer.data.in_memory import InMemoryDataset, as_tensor
from trainer.system.cores import usable

# Number of batches to prefetch, in case a busy machine delays a batch. Four batches of 512 images
# of 28×28×1 take 1.6 MB.
PREFETCH = 4


def chunks(
    batches: int | None,
    batch_size: int,
    first_of: Callable[[tf.Tensor], tf.Tensor],
    indices_at: Callable[[tf.Tensor], tf.Tensor],
    options: Mapping[str, Any] | None = None,
) -> tf.data.Dataset:
    """Returns a dataset of chunks, each with the indices and the positions of its examples.

    An example's position is the number of examples that the run consumes before the example.

    The dataset has the chunks of `batches` batches, or is endless if `batches` is None. A batch
    consists of equal chunks of up to 16 examples (see `chunk_decoding`). `first_of` maps the number
    of a batch, from 0, to the position of its first example. `indices_at` maps positions to indices
    of examples. `options` are arguments of the `Dataset.map` that calls `first_of` and
    `indices_at`.
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
    """Returns a dataset of element(t, pixels, labels) for each number t in `counter`.

    `element` gets the pixels, uint8 [N, h, w, c], and labels, int32 [N], of all N examples.
    """
    with tf.device("CPU:0"):
        pixels, labels = as_tensor(images.images), tf.constant(images.labels, tf.int32)
    elements = counter.map(
        tf.autograph.experimental.do_not_convert(lambda t: element(t, pixels, labels)),
        num_parallel_calls=min(16, len(usable())),
        deterministic=True,
    )
    return with_options(elements.prefetch(PREFETCH))


def with_options(dataset: tf.data.Dataset, threads: int | None = None) -> tf.data.Dataset:
    """Returns the dataset with this project's options and a pool of `threads` threads.

    If `threads` is None, the dataset uses TensorFlow's pool, which has one thread per core.
    """
    options = tf.data.Options()
    if threads is not None:
        options.threading.private_threadpool_size = threads
    options.deterministic = True
    # Autotuning gains nothing. Its thread delays the end of a pipeline by 0.2 to 0.6 s, and each
    # growth of the batch size ends a pipeline.
    options.autotune.enabled = False
    # If TensorFlow rewrote tf.data's graph, it would copy all captured images into the graph. For
    # 676 MB of images, preparing the graph takes 0.6 s and 690 MB of memory with the copy, but
    # 10 ms and no memory without the copy. (With op determinism, TensorFlow rewrites the graph in
    # spite of this option.)
    options.experimental_optimization.apply_default_optimizations = False
    # Each process already makes only its own elements, and TensorFlow would shard them again.
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.OFF
    return dataset.with_options(options)
