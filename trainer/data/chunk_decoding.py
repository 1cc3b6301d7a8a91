"""Encoded examples read, decoded and put in order, with what cannot be decoded caught one by one.

Chunks of a few examples are read at once and decoded side by side, each on one thread. A chunk is a
dataset of its own, because that is where TensorFlow can drop an element that fails
(`ignore_errors`) and go on; nothing is slower for it (two cores, JPEGs of 84 KB: 1,771 images/s in
such chunks, 1,693 without). What is missing afterwards is filled in by Python, where a
reason can be had, and another example in its place.
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
# Bounds how many examples are read ahead of the decoding, and the wait for the first.
_CHUNK = 16


def chunk_size(batch_size: int) -> int:
    """The largest divisor of a batch that is read and decoded as one."""
    return max(n for n in range(1, _CHUNK + 1) if batch_size % n == 0)


def threads() -> int:
    """Threads that read and decode, a chunk each: several a core, because a read may wait.

    Where each read took 3 ms, two cores made 1,250 images/s by four threads each, and 459 by one;
    from the page cache as many by either.
    """
    cores = len(usable())
    return min(4 * cores, cores + 64)  # a chunk of photographs takes 4 MB


def decoded(
    source: IndexedDataset,
    places: tf.data.Dataset,
    decode: Decode,
    bad: BadExamples,
    replacements: Callable[[int], Sequence[int]] | None,
) -> tf.data.Dataset:
    """The examples at some places, in order.

    Args:
        source: where they are.
        places: elements of (indices int64 [n], positions int64 [n]), n static.
        decode: (file's bytes [], its orientation or None, position int64 []) → uint8 [h, w, c], in
            a graph or eagerly.
        bad: told of what cannot be read or decoded.
        stand_ins: position → indices that may be taken in place of a bad example, one after the
            other; None: it is black, of weight 0.

    Returns:
        Elements of (images uint8 [n, h, w, c], labels int32 [n], weights float32 [n], positions
        int64 [n]).
    """
    (chunk,) = places.element_spec[0].shape
    side_by_side = threads()

    def example(position: tf.Tensor, *fetched: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
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

    def filled(
        slots: np.ndarray, some: np.ndarray, their_labels: np.ndarray, *at: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The chunk of which only `some` could be decoded, with something in every slot."""
        images = np.zeros((chunk, *source.image_shape), np.uint8)
        labels, weights = np.zeros(chunk, np.int32), np.zeros(chunk, np.float32)
        images[slots], labels[slots], weights[slots] = some, their_labels, 1
        for slot in sorted({*range(chunk)} - {*slots.tolist()}):
            index, position = (int(values[slot]) for values in at)
            tried = [index, *(replacements(position) if replacements else ())]
            examples = (_example(source, example, each, position, bad) for each in tried)
            found = next((each for each in examples if each is not None), None)
            if found is not None:
                images[slot], labels[slot], weights[slot] = *found, 1
            elif replacements:
                bad.refuse(f"{source.name}: {len(tried)} examples in a row cannot be used.")
        return images, labels, weights

    def one_chunk(indices: tf.Tensor, positions: tf.Tensor, *fetched: tf.Tensor) -> tf.data.Dataset:
        slots = tf.range(chunk)
        parts = tf.data.Dataset.from_tensor_slices((slots, positions, *fetched))
        good = parts.map(lambda slot, *rest: (slot, *example(*rest))).ignore_errors()
        # Or there would be no element where all are bad.
        black = tf.zeros(source.image_shape, tf.uint8), tf.constant(0)
        last = tf.data.Dataset.from_tensors((tf.constant(chunk), *black))

        def complete(
            there: tf.Tensor, images: tf.Tensor, labels: tf.Tensor
        ) -> tuple[tf.Tensor, ...]:
            some = there[:-1], images[:-1], labels[:-1]
            types = [tf.uint8, tf.int32, tf.float32]
            values = tf.cond(
                tf.equal(tf.size(there), chunk + 1),
                lambda: [*some[1:], tf.ones([chunk])],
                lambda: tf.numpy_function(filled, [*some, indices, positions], types),
            )
            shapes = [(chunk, *source.image_shape), (chunk,), (chunk,)]
            full = [tf.ensure_shape(v, shape) for v, shape in zip(values, shapes, strict=True)]
            return *full, positions

        return good.concatenate(last).batch(chunk + 1).map(complete)

    return places.map(
        lambda indices, positions: (indices, positions, *source.fetch(indices)),
        num_parallel_calls=side_by_side,
        deterministic=True,
    ).interleave(
        one_chunk,
        cycle_length=side_by_side,
        block_length=1,
        num_parallel_calls=side_by_side,
        deterministic=True,
    )


def _example(
    source: IndexedDataset,
    example: Callable[..., tuple[tf.Tensor, tf.Tensor]],
    index: int,
    position: int,
    bad: BadExamples,
) -> tuple[np.ndarray, np.ndarray] | None:
    """Image and label at an index, decoded now; None where it is bad, which is told.

    What is known to be bad is tried again: of a file that is cut off, some positions' crops can be
    decoded, and what stands in for another must not depend on which were met before.
    """
    with tf.init_scope(), tf.device("CPU:0"):
        try:
            fetched = [values[0] for values in source.fetch(tf.constant([index], tf.int64))]
            if fetched[0].numpy() == b"":
                reason = source.unread(index) or "it cannot be read; its file is missing or damaged"
            elif 0 <= source.open(*fetched).label < source.classes:
                image, label = example(tf.constant(position, tf.int64), *fetched)
                return image.numpy(), label.numpy()
            else:
                reason = "training knows no such label"
        except tf.errors.OpError as error:
            # Without the name of TensorFlow's function, and with one dot at the end.
            text = re.sub(r"\{\{.*?\}\}|\[Op:.*", "", error.message, flags=re.DOTALL)
            reason = " ".join(text.split())
            with contextlib.suppress(tf.errors.OpError):
                data = source.open(*fetched).content.numpy()
                reason = pillow_decoding.reason(data, source.max_pixels) or reason
        except pillow_decoding.UndecodableError as error:
            reason = str(error)
    bad.add(source.describe(index), reason.rstrip("."))
    return None
