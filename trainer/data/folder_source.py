"""A split of a folder of images as a set that is read by index."""

import os
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from trainer.data import folder, picture_files
from trainer.data.encoded import Encoded
from trainer.data.names import places, refuse_unknown, split_summary


def load(
    dataset: str,
    split: str,
    class_names: Sequence[str] | None,
    image_size: int,
    max_pixels: int,
    skip: bool,
) -> Encoded:
    """A split of image_folder:PATH; the arguments are those of `sources.load`.

    Raises:
        UserError: no such split, a class without a picture, or one that is not in `class_names`
            if such examples may not be skipped.
    """
    files = folder.list_files(dataset.removeprefix(folder.PREFIX), split)
    own_names = [os.path.basename(path) for path in files.folders]
    names = tuple(sorted(set(own_names)) if class_names is None else class_names)
    refuse_unknown(own_names, names, f"{dataset} {split}", skip)
    labels = places(own_names, names)
    counts = np.zeros(len(names) + 1, np.int64)  # the last: of classes that the run does not know
    np.add.at(counts, labels, np.bincount(files.folder_of, minlength=len(labels)))
    largest = picture_files.largest_file(max_pixels)

    def unread(index: int) -> str | None:
        try:
            picture_files.read(files.path(index), largest)
        except picture_files.UnreadableError as error:
            return str(error)
        return None

    return Encoded(
        examples=len(files),
        class_names=names,
        image_shape=(image_size, image_size, 3),
        name=f"{dataset} {split}",
        fetch=_fetch(files, labels),
        open=_open(largest),
        describe=files.path,
        max_pixels=max_pixels,
        unread=unread,
        summary=split_summary(split, len(files), names, counts[:-1].tolist(), files.left_out),
    )


def _fetch(
    files: folder.Files, labels: Sequence[int]
) -> Callable[[tf.Tensor], tuple[tf.Tensor, ...]]:
    """Indices [n] → (paths, or empty if one cannot be read; contents; orientations; labels)."""
    with tf.device("CPU:0"):
        # As bytes, for names that are not UTF-8.
        folders = tf.constant([os.fsencode(path) for path in files.folders])  # [folders]
        label_of = tf.constant(labels, tf.int32)
        folder_of, names = tf.constant(files.folder_of), tf.constant(files.names)  # [N]

    def fetch(indices: tf.Tensor) -> tuple[tf.Tensor, ...]:
        at = tf.gather(folder_of, indices)
        paths = tf.strings.join([tf.gather(folders, at), tf.gather(names, indices)], "/")
        types = [tf.string, tf.string, tf.int32]
        read = tf.numpy_function(picture_files.read_chunk, [paths], types, stateful=False)
        values = [tf.ensure_shape(value, indices.shape) for value in read]
        return *values, tf.gather(label_of, at)

    return fetch


def _open(largest: int) -> Callable[..., tuple[tf.Tensor, tf.Tensor, tf.Tensor]]:
    """One of each of what `_fetch` returns → (content, label, orientation); reads a large file."""

    def open_file(
        path: tf.Tensor, content: tf.Tensor, orientation: tf.Tensor, label: tf.Tensor
    ) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        def now() -> list[tf.Tensor]:
            values = tf.numpy_function(
                lambda path: picture_files.read_large(path, largest),
                [path],
                [tf.string, tf.int32],
                stateful=False,
            )
            return [tf.ensure_shape(value, []) for value in values]

        later = tf.equal(orientation, picture_files.LATER)
        content, orientation = tf.cond(later, now, lambda: [content, orientation])
        return content, label, orientation

    return open_file
