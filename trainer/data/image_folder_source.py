"""Opens a split of an image folder or an image CSV file, to read its examples by index."""

import os
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from trainer.data import image_listing, picture_files
from trainer.data.bucket import open_folders
from trainer.data.bucket.folder import BucketFolder
from trainer.data.class_names import places, refuse_unknown, split_summary
from trainer.data.image_files import Files
from trainer.data.indexed import IndexedDataset, Opened

CHANNELS = 3  # Grey pictures are decoded to three channels, too.


def load(
    dataset: str,
    split: str,
    class_names: Sequence[str] | None,
    image_size: int,
    max_pixels: int,
    skip: bool,
) -> IndexedDataset:
    """Opens a split of image_folder:PATH or image_csv:PATH, with arguments as in `sources.load`.

    If `skip` is True, examples of classes that are not in `class_names` get the label −1.

    Raises:
        UserError: if the split does not exist; if a class has no pictures; if a class is not in
            `class_names`, and `skip` is False.
    """
    files = image_listing.list_files(dataset, split)
    folder = open_folders.of(files.path(0))  # A split has at least one file.
    if folder:
        folder.need(map(files.path, range(len(files))), split)
    names = tuple(sorted(set(files.class_names)) if class_names is None else class_names)
    refuse_unknown(files.class_names, names, f"{dataset} {split}", skip)
    labels = np.array(places(files.class_names, names), np.int32)[files.class_of]  # [N]
    # Pictures of unknown classes have the label −1 and are not counted.
    counts = np.bincount(labels[labels >= 0], minlength=len(names))
    largest = picture_files.largest_file(max_pixels)

    return IndexedDataset(
        examples=len(files),
        class_names=names,
        image_shape=(image_size, image_size, CHANNELS),
        name=f"{dataset} {split}",
        fetch=_fetch(files, labels, largest, folder),
        labels=lambda: labels.astype(np.int64),
        open=lambda path, orientation, label: Opened(tf.io.read_file(path), label, orientation),
        describe=lambda index: open_folders.shown(files.path(index)),
        path=files.path,
        max_pixels=max_pixels,
        unread=lambda index: picture_files.unread(files.path(index), largest),
        fetch_again=_fetch_again(files, folder),
        summary=split_summary(split, len(files), names, counts.tolist(), files.left_out),
    )


def _fetch_again(files: Files, folder: BucketFolder | None) -> Callable[[int], bool] | None:
    return None if folder is None else lambda index: folder.fetch_again(files.path(index))


def _fetch(
    files: Files, labels: np.ndarray, largest: int, folder: BucketFolder | None
) -> Callable[[tf.Tensor], tuple[tf.Tensor, ...]]:
    """Returns the function that maps indices [n] to paths, EXIF orientations and labels, each [n].

    The path of a file that cannot be read is "".
    """
    with tf.device("CPU:0"):
        # Paths are bytes, because some names are not valid UTF-8.
        folders = tf.constant([os.fsencode(path) for path in files.folders])  # [folders]
        folder_of, names = tf.constant(files.folder_of), tf.constant(files.names)  # [N]
        label_of = tf.constant(labels)  # int32 [N]

    def look(paths: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        if folder:
            folder.bring(map(os.fsdecode, paths))
        return picture_files.look(paths, largest)

    def fetch(indices: tf.Tensor) -> tuple[tf.Tensor, ...]:
        own_folders = tf.gather(folders, tf.gather(folder_of, indices))
        paths = tf.strings.join([own_folders, tf.gather(names, indices)], "/")
        seen = tf.numpy_function(look, [paths], [tf.string, tf.int32], stateful=False)
        paths, orientations = (tf.ensure_shape(value, indices.shape) for value in seen)
        return paths, orientations, tf.gather(label_of, indices)

    return fetch
