"""Reads and decodes encoded examples in order; a bad example is replaced, or gets weight 0.

A bad example cannot be read or decoded, or its label is not a class of the run. A chunk is up to 16
consecutive examples. One call reads a chunk and one thread decodes it, while other threads work on
other chunks. Each chunk is a small tf.data dataset, so that `ignore_errors` can drop its bad
examples. Python code then finds the reason for each bad example, and a replacement. Many small
datasets are not slower than one large dataset: for JPEGs of 84 KB, two cores made 1,771 images/s
with chunks and 1,693 images/s without chunks.

The position of a training example is the number of examples that the run consumes before it. In
evaluation, the position of an example is its index in the split. Copies of the last example fill
the last batches. The positions of these copies follow the split's last index.
"""

import contextlib
import dataclasses
import re
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from trainer.data import exif, pillow_decoding
from trainer.data.bad_examples import BadExamples
from trainer.data.indexed import NO_LABEL, IndexedDataset
from trainer.system.cores import usable

# Maps a file's bytes [], its EXIF orientation (or None) and the example's position, int64 [], to
# the decoded image, uint8 [h, w, c].
Decode = Callable[[tf.Tensor, tf.Tensor | None, tf.Tensor], tf.Tensor]
# Larger chunks would delay the first batch and take more memory in each thread.
_LARGEST_CHUNK = 16
_UNKNOWN_LABEL = "its label is not one of the run's classes"
_NO_LABEL = "it has no label. If no example of this split has one, choose another split"


def chunk_size(batch_size: int) -> int:
    """Returns the number of examples in a chunk: the largest divisor of the batch size up to 16."""
    return max(n for n in range(1, _LARGEST_CHUNK + 1) if batch_size % n == 0)


def threads() -> int:
    """Returns the number of threads that read and decode; there are several per core.

    A thread that waits for a read leaves its core to other threads. If each read takes 3 ms, two
    cores make 1,250 images/s with four threads per core, and 459 images/s with one thread per core.
    If the files are in the page cache, one thread per core is as fast as four.
    """
    cores = len(usable())
    # The limit cores + 64 saves memory, because each thread holds a chunk, such as 4 MB of
    # photographs.
    return min(4 * cores, cores + 64)


def decoded(
    source: IndexedDataset,
    places: tf.data.Dataset,
    decode: Decode,
    bad: BadExamples,
    replacements: Callable[[int], Sequence[int]] | None,
) -> tf.data.Dataset:
    """Returns the examples at `places`, in order and in chunks.

    Args:
        source: the examples.
        places: chunks of (indices int64 [n], positions int64 [n]), with a static n.
        decode: decodes an example; it is called both in a graph and eagerly.
        bad: records the examples that cannot be read or decoded.
        replacements: maps the position of a bad example to the indices of the examples to try in
            its place, in order; if None, a bad example becomes black with weight 0.

    Returns:
        Chunks of (images uint8 [n, h, w, c], labels int32 [n], weights float32 [n], positions
        int64 [n]).
    """
    chunks = _Chunks(source, decode, bad, replacements, places.element_spec[0].shape[0])

    @tf.autograph.experimental.do_not_convert
    def fetch(indices: tf.Tensor, positions: tf.Tensor) -> tuple[tf.Tensor, ...]:
        return indices, positions, *source.fetch(indices)

    return places.map(
        fetch,
        num_parallel_calls=threads(),
        deterministic=True,
    ).interleave(
        tf.autograph.experimental.do_not_convert(chunks.decoded),
        cycle_length=threads(),
        block_length=1,
        num_parallel_calls=threads(),
        deterministic=True,
    )


@dataclasses.dataclass(frozen=True)
class _Chunks:
    """Decodes chunks of `size` examples; the function `decoded` describes the other attributes."""

    source: IndexedDataset
    decode: Decode
    bad: BadExamples
    replacements: Callable[[int], Sequence[int]] | None
    size: int

    def decoded(
        self, indices: tf.Tensor, positions: tf.Tensor, *fetched: tf.Tensor
    ) -> tf.data.Dataset:
        """Returns a dataset of one element: a chunk's images, labels, weights and positions."""
        parts = tf.data.Dataset.from_tensor_slices((tf.range(self.size), positions, *fetched))
        good = parts.map(lambda slot, *rest: (slot, *self._example(*rest))).ignore_errors()
        # If all examples of a chunk are bad, `good` has no batch, and an empty batch takes its
        # place. The batch is passed on whole. If it were sliced, the later `rebatch` would get
        # slices of images, and TensorFlow would print an error for each slice.
        shape, no_labels = (0, *self.source.image_shape), tf.zeros([0], tf.int32)
        empty = tf.data.Dataset.from_tensors((no_labels, tf.zeros(shape, tf.uint8), no_labels))
        return (
            good.batch(self.size)
            .concatenate(empty)
            .take(1)
            .map(lambda *batch: (*self._complete(batch, indices, positions), positions))
        )

    def _example(self, position: tf.Tensor, *fetched: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Decodes a fetched example to (image, label); a bad example raises TensorFlow's error."""
        encoded, label, orientation = self.source.open(*fetched)
        known = tf.debugging.Assert((label >= 0) & (label < self.source.classes), ["no label"])
        with tf.control_dependencies([known]):
            if orientation is None:
                return self.decode(encoded, None, position), label
            pixels = tf.cond(
                tf.equal(orientation, exif.UPRIGHT),
                lambda: self.decode(encoded, None, position),
                lambda: self.decode(encoded, orientation, position),
            )
        return pixels, label

    def _complete(
        self, batch: Sequence[tf.Tensor], indices: tf.Tensor, positions: tf.Tensor
    ) -> list[tf.Tensor]:
        """Returns images, labels and weights of a whole chunk.

        `batch` has the slots (indices in the chunk), images and labels of the good examples.
        """
        slots, images, labels = batch
        values = tf.cond(
            tf.equal(tf.size(slots), self.size),
            lambda: [images, labels, tf.ones([self.size])],
            lambda: tf.numpy_function(
                self._fill_gaps,
                [slots, images, labels, indices, positions],
                [tf.uint8, tf.int32, tf.float32],
            ),
        )
        shapes = [(self.size, *self.source.image_shape), (self.size,), (self.size,)]
        return [tf.ensure_shape(value, each) for value, each in zip(values, shapes, strict=True)]

    def _fill_gaps(
        self,
        slots: np.ndarray,
        good_images: np.ndarray,
        good_labels: np.ndarray,
        indices: np.ndarray,
        positions: np.ndarray,
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Returns images, labels and weights of a chunk, with replacements for its bad examples."""
        images = np.zeros((self.size, *self.source.image_shape), np.uint8)
        labels, weights = np.zeros(self.size, np.int32), np.zeros(self.size, np.float32)
        images[slots], labels[slots], weights[slots] = good_images, good_labels, 1
        for slot in sorted({*range(self.size)} - {*slots.tolist()}):
            position = int(positions[slot])
            others = self.replacements(position) if self.replacements else ()
            tried = [int(indices[slot]), *others]
            examples = (self._decoded_alone(index, position) for index in tried)
            example = next((each for each in examples if each is not None), None)
            if example is not None:
                images[slot], labels[slot], weights[slot] = *example, 1
            elif self.replacements:
                self.bad.refuse(
                    f"{self.source.name}: {len(tried)} examples in a row cannot be used."
                )
        return images, labels, weights

    def _decoded_alone(
        self, index: int, position: int, *, again: bool = True
    ) -> tuple[np.ndarray, int] | None:
        """Decodes an example eagerly; records the reason and returns None if the example is bad.

        An example that was bad at an earlier position is tried again, because a random crop of a
        truncated file may succeed at another position. So the replacement at a position does not
        depend on the examples that were read before.
        """
        source = self.source
        with tf.init_scope(), tf.device("CPU:0"):
            try:
                fetched = [values[0] for values in source.fetch(tf.constant([index], tf.int64))]
                if fetched[0].numpy() == b"":
                    reason = source.unread(index) or "its file is missing or damaged"
                elif 0 <= (label := int(source.open(*fetched).label)) < source.classes:
                    image, _ = self._example(tf.constant(position, tf.int64), *fetched)
                    return image.numpy(), label
                else:
                    reason = _NO_LABEL if label == NO_LABEL else _UNKNOWN_LABEL
            except tf.errors.OpError as error:
                # Remove the names of TensorFlow's functions from the reason.
                text = re.sub(r"\{\{.*?\}\}|\[Op:.*", "", error.message, flags=re.DOTALL)
                reason = " ".join(text.split())
                with contextlib.suppress(tf.errors.OpError):
                    data = source.open(*fetched).content.numpy()
                    # Pillow can decode a PNG that lacks only its last bytes, so it reports no error
                    # for such a file. In that case, TensorFlow's message is the reason.
                    invalid = re.match("Invalid (JPEG|PNG) data", reason)
                    known = pillow_decoding.reason(data, source.max_pixels)
                    reason = known or (f"it is damaged: {reason}" if invalid else reason)
            except pillow_decoding.UndecodableError as error:
                reason = str(error)
        repairs = again and reason not in (_UNKNOWN_LABEL, _NO_LABEL) and source.fetch_again
        if repairs and repairs(index):
            return self._decoded_alone(index, position, again=False)
        self.bad.add(source.describe(index), reason.rstrip("."))
        return None
