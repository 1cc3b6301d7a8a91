"""Reads and decodes encoded examples in order; a bad one is replaced, or gets weight 0.

Up to 16 consecutive examples are a chunk: one thread reads them in one call and decodes them, while
other threads decode other chunks. A chunk is a dataset of its own, so that TensorFlow can drop the
elements that fail (`ignore_errors`). This costs nothing (two cores, JPEGs of 84 KB: 1,771 images/s
in such chunks, 1,693 without). For each dropped example, Python then finds the
reason and a replacement.
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
# Most examples in a chunk: bounds what is read ahead, and the wait for the first example.
_CHUNK = 16


def chunk_size(batch_size: int) -> int:
    """Returns the number of examples in a chunk, which divides the batch size."""
    return max(n for n in range(1, _CHUNK + 1) if batch_size % n == 0)


def threads() -> int:
    """Returns the number of threads that read and decode: several per core, because reads wait.

    If each read took 3 ms, two cores made 1,250 images/s with four threads per core, and 459 with
    one. If files were in the page cache, both were equally fast.
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
          → fetch      reads the chunk's examples in one call
          → decode     decodes each example by itself, and drops examples that fail
          → complete   fills the gaps of a chunk, if it has any

    Args:
        source: the examples.
        places: elements of (indices int64 [n], positions int64 [n]), n static.
        decode: (file's bytes [], orientation or None, position int64 []) → uint8 [h, w, c]; called
            in a graph and eagerly.
        bad: records the examples that cannot be read or decoded.
        replacements: position → indices of the examples to try, in order, in place of a bad one;
            None: a bad example becomes black with weight 0.

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
    """Returns a dataset of one element: slots, images and labels of a chunk's good examples.

    A black example with slot `chunk` is added at the end, because a chunk without good examples
    would have no element.
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
    """Returns images, labels and weights of the whole chunk, from the element of `_good_examples`.

    `shape` is the shape of the chunk's images. `fill_gaps` is called only if the chunk has gaps.
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
    """Returns image and label of a fetched example; fails if it has no label or is undecodable."""
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
    """Returns images, labels and weights of a chunk, with replacements in the missing slots.

    Args:
        source, decode, bad, replacements: arguments of `decoded`.
        good: slots, images and labels of the decoded examples.
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
    """Decodes the example at an index; returns None and records the reason if the example is bad.

    A known bad example is tried again. If a file is cut off, the crops of some positions can still
    be decoded, and replacements must not depend on the examples that were read before.
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
            # Remove the names of TensorFlow's functions from the reason.
            text = re.sub(r"\{\{.*?\}\}|\[Op:.*", "", error.message, flags=re.DOTALL)
            reason = " ".join(text.split())
            with contextlib.suppress(tf.errors.OpError):
                data = source.open(*fetched).content.numpy()
                reason = pillow_decoding.reason(data, source.max_pixels) or reason
        except pillow_decoding.UndecodableError as error:
            reason = str(error)
    bad.add(source.describe(index), reason.rstrip("."))
    return None
