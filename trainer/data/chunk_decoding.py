"""Reading and decoding of encoded examples, in order; each example that fails is replaced.

A few consecutive examples are a chunk: they are read at once and decoded on one thread, and several
chunks are decoded at the same time. A chunk is a dataset of its own, because there TensorFlow can
drop an element that fails (`ignore_errors`) and go on. This costs nothing (two cores, JPEGs of
84 KB: 1,771 images/s in such chunks, 1,693 without). Python then fills the gaps: it finds the
reason and another example.
"""

import contextlib
import re
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from trainer.data import exif, pillow_decoding
from trainer.data.bad_examples import BadExamples
from trainer.data.indexed import IndexedDataset
from trainer.system.cores import usable

Decode = Callable[[tf.Tensor, tf.Tensor | None, tf.Tensor], tf.Tensor]
# Examples of a chunk: bounds what is read ahead of the decoding, and the wait for the first.
_CHUNK = 16


def chunk_size(batch_size: int) -> int:
    """Returns the number of examples of a chunk, a divisor of the batch size."""
    return max(n for n in range(1, _CHUNK + 1) if batch_size % n == 0)


def threads() -> int:
    """Returns the number of threads that read and decode: several a core, as a read may wait.

    When each read took 3 ms, four threads a core made 1,250 images/s on two cores, and one a core
    made 459. From the page cache the two were equally fast.
    """
    cores = len(usable())
    return min(4 * cores, cores + 64)  # A chunk of photographs takes 4 MB.


def decoded(
    source: IndexedDataset,
    places: tf.data.Dataset,
    decode: Decode,
    bad: BadExamples,
    replacements: Callable[[int], Sequence[int]] | None,
) -> tf.data.Dataset:
    """Returns the examples at `places`, in order.

        places    (indices, positions) of a chunk
          → fetch      reads the chunk's examples at once
          → decode     each example by itself; those that fail are dropped
          → complete   a chunk without gaps as it is, another one with them filled

    Args:
        source: the examples.
        places: elements of (indices int64 [n], positions int64 [n]), n static.
        decode: (file's bytes [], its orientation or None, position int64 []) → uint8 [h, w, c], in
            a graph or eagerly.
        bad: records the examples that cannot be read or decoded.
        replacements: position → indices to try in place of a bad example, one after the other;
            None: a bad example is black, and has weight 0.

    Returns:
        Elements of (images uint8 [n, h, w, c], labels int32 [n], weights float32 [n], positions
        int64 [n]).
    """
    (chunk,) = places.element_spec[0].shape

    def fill_gaps(
        slots: np.ndarray, images: np.ndarray, labels: np.ndarray, *at: np.ndarray
    ) -> tuple[np.ndarray, ...]:
        return _fill_gaps(source, decode, bad, replacements, (slots, images, labels), at)

    def decoded_chunk(
        indices: tf.Tensor, positions: tf.Tensor, *fetched: tf.Tensor
    ) -> tf.data.Dataset:
        good = _good_examples(source, decode, chunk, positions, *fetched)
        return good.map(
            lambda *batch: (
                *_complete(batch, (chunk, *source.image_shape), indices, positions, fill_gaps),
                positions,
            )
        )

    return places.map(
        lambda indices, positions: (indices, positions, *source.fetch(indices)),
        num_parallel_calls=threads(),
        deterministic=True,
    ).interleave(
        decoded_chunk,
        cycle_length=threads(),
        block_length=1,
        num_parallel_calls=threads(),
        deterministic=True,
    )


def _good_examples(
    source: IndexedDataset, decode: Decode, chunk: int, positions: tf.Tensor, *fetched: tf.Tensor
) -> tf.data.Dataset:
    """Returns one element: slots, images and labels of the examples of a chunk that are decoded.

    A last example is added, of slot `chunk`: without it, a chunk of bad examples would have no
    element.
    """
    slots = tf.range(chunk)
    parts = tf.data.Dataset.from_tensor_slices((slots, positions, *fetched))
    good = parts.map(
        lambda slot, *rest: (slot, *_decoded_example(source, decode, *rest))
    ).ignore_errors()
    black = tf.zeros(source.image_shape, tf.uint8), tf.constant(0)
    last = tf.data.Dataset.from_tensors((tf.constant(chunk), *black))
    return good.concatenate(last).batch(chunk + 1)


def _complete(
    batch: Sequence[tf.Tensor],
    shape: tuple[int, ...],
    indices: tf.Tensor,
    positions: tf.Tensor,
    fill_gaps: Callable[..., tuple[np.ndarray, ...]],
) -> list[tf.Tensor]:
    """Returns images, labels and weights of the whole chunk, from what `_good_examples` returned.

    `shape` is that of the chunk's images. `fill_gaps` is called only for a chunk with gaps.
    """
    slots, images, labels = (values[:-1] for values in batch)
    chunk, *_ = shape
    values = tf.cond(
        tf.equal(tf.size(slots), chunk),
        lambda: [images, labels, tf.ones([chunk])],
        lambda: tf.numpy_function(
            fill_gaps,
            [slots, images, labels, indices, positions],
            [tf.uint8, tf.int32, tf.float32],
        ),
    )
    shapes = [shape, (chunk,), (chunk,)]
    return [tf.ensure_shape(value, each) for value, each in zip(values, shapes, strict=True)]


def _decoded_example(
    source: IndexedDataset, decode: Decode, position: tf.Tensor, *fetched: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """Returns image and label of what was fetched; fails if it is not decoded or has no label."""
    encoded, label, orientation = source.open(*fetched)
    known = tf.debugging.Assert((label >= 0) & (label < source.classes), ["no label"])
    with tf.control_dependencies([known]):
        if orientation is None:
            return decode(encoded, None, position), label
        pixels = tf.cond(
            tf.equal(orientation, exif.UPRIGHT),
            lambda: decode(encoded, None, position),
            lambda: decode(encoded, orientation, position),
        )
    return pixels, label


def _fill_gaps(
    source: IndexedDataset,
    decode: Decode,
    bad: BadExamples,
    replacements: Callable[[int], Sequence[int]] | None,
    good: tuple[np.ndarray, np.ndarray, np.ndarray],
    at: Sequence[np.ndarray],
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns images, labels and weights of a chunk whose other slots hold replacements.

    Args:
        source, decode, bad, replacements: as `decoded` has them.
        good: slots, images and labels of the examples that were decoded.
        at: indices and positions of the chunk.
    """
    chunk = len(at[0])
    images = np.zeros((chunk, *source.image_shape), np.uint8)
    labels, weights = np.zeros(chunk, np.int32), np.zeros(chunk, np.float32)
    slots, good_images, good_labels = good
    images[slots], labels[slots], weights[slots] = good_images, good_labels, 1
    for slot in sorted({*range(chunk)} - {*slots.tolist()}):
        index, position = (int(values[slot]) for values in at)
        tried = [index, *(replacements(position) if replacements else ())]
        examples = (_example(source, decode, each, position, bad) for each in tried)
        example = next((each for each in examples if each is not None), None)
        if example is not None:
            images[slot], labels[slot], weights[slot] = *example, 1
        elif replacements:
            bad.refuse(f"{source.name}: {len(tried)} examples in a row cannot be used.")
    return images, labels, weights


def _example(
    source: IndexedDataset,
    decode: Decode,
    index: int,
    position: int,
    bad: BadExamples,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Returns image and label at an index, decoded now; None if it is bad, which `bad` records.

    A known bad example is tried again: of a file that is cut off, some positions' crops can be
    decoded, and a replacement must not depend on which examples were met before.
    """
    with tf.init_scope(), tf.device("CPU:0"):
        try:
            fetched = [values[0] for values in source.fetch(tf.constant([index], tf.int64))]
            if fetched[0].numpy() == b"":
                reason = source.unread(index) or "it cannot be read; its file is missing or damaged"
            elif 0 <= source.open(*fetched).label < source.classes:
                at = tf.constant(position, tf.int64)
                image, label = _decoded_example(source, decode, at, *fetched)
                return image.numpy(), label.numpy()
            else:
                reason = "training knows no such label"
        except tf.errors.OpError as error:
            # The reason without the names of TensorFlow's functions.
            text = re.sub(r"\{\{.*?\}\}|\[Op:.*", "", error.message, flags=re.DOTALL)
            reason = " ".join(text.split())
            with contextlib.suppress(tf.errors.OpError):
                data = source.open(*fetched).content.numpy()
                reason = pillow_decoding.reason(data, source.max_pixels) or reason
        except pillow_decoding.UndecodableError as error:
            reason = str(error)
    bad.add(source.describe(index), reason.rstrip("."))
    return None
