"""Reads examples by index, in any order, from sets that TFDS has prepared as ArrayRecord files."""

import os
import resource
import threading
from typing import Any

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds
from array_record.python import array_record_module

from trainer.data.bucket import open_folders
from trainer.data.bucket.folder import BucketFolder
from trainer.data.bucket.placeholders import is_placeholder
from trainer.data.class_names import places
from trainer.data.indexed import NO_LABEL, IndexedDataset, Opened
from trainer.data.tfds import record_labels, set_files
from trainer.data.tfds.remote_records import RemoteRecords
from trainer.data.tfds.splits import count_split
from trainer.errors import UserError

# With these options, ArrayRecord's reader uses the calling thread and does not read ahead. Reading
# a record of 92 KB takes 67 µs and one system call, with any buffer size from 8 to 128 KiB.
_READER = {"options": "readahead_buffer_size:0,max_parallelism:1", "file_reader_buffer_size": 2**15}
_SPARE_FILES = 256  # Descriptors for other files: libraries, checkpoints, sockets.


def supervised_features(
    builder: tfds.core.DatasetBuilder, dataset: str
) -> tuple[tfds.features.Image, tfds.features.ClassLabel]:
    """Returns the features of the image and the label.

    Raises:
        UserError: if the set does not have 8-bit images with one label each.
    """
    keys = builder.info.supervised_keys or ()
    features = [builder.info.features[key] for key in keys if isinstance(key, str)]
    match features:
        case [tfds.features.Image() as image, tfds.features.ClassLabel() as label]:
            if image.np_dtype == np.uint8 and image.shape[-1] is not None:
                return image, label
            raise UserError(
                f"{dataset}'s images are {np.dtype(image.np_dtype).name} of shape {image.shape}.\n"
                "Choose a set of 8-bit images with a fixed number of channels."
            )
    raise UserError(
        f"{dataset} is not an image-classification set: TFDS's supervised keys are "
        f"{keys or 'none'}.\nChoose a set whose supervised keys are an image and a class."
    )


def label_names(label: tfds.features.ClassLabel, dataset: str) -> tuple[str, ...]:
    """Returns the class names of a set, by label; if classes have no names, their numbers as text.

    Raises:
        UserError: if the set does not give its number of classes.
    """
    if label.num_classes is None:
        raise UserError(f"{dataset} does not say how many classes it has: choose another set.")
    return tuple(label.names)


def indexed(
    builder: tfds.core.DatasetBuilder,
    split: str,
    image_shape: tuple[int, int, int],
    class_names: tuple[str, ...],
    name: str,
    *,
    whole: bool,
) -> IndexedDataset:
    """Opens a split for reading by index; its set must be prepared as ArrayRecord.

    Args:
        builder: builder of the prepared set.
        split: a split in TFDS's syntax.
        image_shape: (h, w, c) that the model receives.
        class_names: the run's class names. A label becomes the index of its class name, or −1 if
            the name is absent.
        name: name of the split for messages.
        whole: whether to fetch the files of a set in a bucket now, because all records are read.

    Raises:
        UserError: if files are missing or cannot be read, or this process may not open all files,
            or a set in a bucket does not fit on the disk.
    """
    pieces = [
        piece
        for piece in set_files.pieces(builder, split, set_files.ARRAY_RECORD)
        if piece.take > 0
    ]
    missing = [piece.filename for piece in pieces if not os.path.exists(piece.filename)]
    if missing:
        raise UserError(
            f"{name}: {len(missing)} of {len(pieces)} files are missing, such as {missing[0]}.\n"
            "Restore them, or delete the folder and prepare it again."
        )
    set_files.check_readable(pieces, name)
    shards = _Shards(pieces, set_files.fetch(pieces, name, whole=whole))
    image_key, label_key = builder.info.supervised_keys
    own_names = label_names(supervised_features(builder, name)[1], name)
    # [the set's classes + 1]: the last element is the label of an example without a class.
    place_of = np.array([*places(own_names, class_names), -1], np.int32)

    def fetch(indices: tf.Tensor) -> tuple[tf.Tensor, ...]:
        records = tf.numpy_function(shards.read, [indices], tf.string, stateful=False)
        return (tf.ensure_shape(records, indices.shape),)

    def open_record(record: tf.Tensor) -> Opened:
        values = tf.io.parse_single_example(record, features(image_key, label_key))
        label = values[label_key]
        known = (label >= 0) & (label < len(own_names))
        own = tf.where(known, label, len(own_names))
        place = tf.where(known, tf.gather(place_of, own), NO_LABEL)
        return Opened(values[image_key], place)

    examples = count_split(builder.info.splits, split, name)
    return IndexedDataset(
        examples,
        class_names,
        image_shape,
        name,
        fetch,
        open_record,
        shards.describe,
        labels=lambda: record_labels.read(shards.read, examples, label_key, place_of, name),
    )


class _Shards:
    """Reads records of ArrayRecord files by index; several threads may call `read` at once.

    A shard is the part of the split that one file holds.

    With 64 files and 16 records of 100 bytes per call, one thread reads 26,000 records/s. TFDS's
    own data source starts up to 64 threads per call, and reads 5,000 records/s.

    Args:
        pieces: pieces of the split, from `set_files.pieces`.
        folder: folder in a bucket that holds the files; None if they are local.
    """

    def __init__(self, pieces: list[Any], folder: BucketFolder | None) -> None:
        self._pieces, self._folder = pieces, folder
        takes = np.array([piece.take for piece in pieces])
        self._ends = np.cumsum(takes)  # [shards]: last index of each shard, plus 1.
        # An index plus its shard's offset is the record's number in the file.
        self._offsets = np.array([piece.skip for piece in pieces]) - self._ends + takes
        self._readers: list[Any] = [None] * len(pieces)
        self._remote: dict[int, RemoteRecords] = {}
        self._lock = threading.Lock()
        _allow_open_files(len({str(piece.filename) for piece in pieces}))

    def read(self, indices: np.ndarray) -> np.ndarray:
        """Returns the records at `indices`, int64 [n], as bytes [n]; unreadable records are b""."""
        shards, numbers = self._places(indices)
        records = np.empty(len(indices), object)

        def fill(shard: int) -> None:
            (slots,) = np.nonzero(shards == shard)
            records[slots] = self._read(shard, numbers[slots].tolist())

        used = np.unique(shards).tolist()
        if self._folder and not all(map(self._is_here, used)):
            self._folder.each(fill, used)  # Reading from a bucket waits most of the time.
        else:
            for shard in used:
                fill(shard)
        return records

    def describe(self, index: int) -> str:
        """Returns the file and number of the record at `index`, for messages."""
        (shard,), (record,) = self._places(np.array([index]))
        return f"record {record} of {open_folders.shown(str(self._pieces[shard].filename))}"

    def _places(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the shard of each index, and the record's number in the shard's file."""
        shards = np.searchsorted(self._ends, indices, side="right")
        return shards, indices + self._offsets[shards]

    def _read(self, shard: int, records: list[int]) -> list[bytes]:
        if self._folder and not self._is_here(shard):
            return self._remote_records(shard).read(records)
        try:
            return self._reader(shard).read(records)
        except (RuntimeError, ValueError, IndexError, OSError):
            if len(records) > 1:
                return [self._read(shard, [record])[0] for record in records]
            if not self._folder:
                return [b""]
            found = self._remote_records(shard).read(records)
            if found != [b""]:
                self._folder.discard(str(self._pieces[shard].filename))
            return found

    def _is_here(self, shard: int) -> bool:
        """Returns whether the shard's file is on the local disk."""
        path = str(self._pieces[shard].filename)
        return self._readers[shard] is not None or not is_placeholder(path)

    def _remote_records(self, shard: int) -> RemoteRecords:
        """Returns the reader of the shard's records in the bucket."""
        assert self._folder
        with self._lock:
            if shard not in self._remote:
                path = str(self._pieces[shard].filename)
                self._remote[shard] = RemoteRecords(self._folder, path, _open_reader)
            return self._remote[shard]

    def _reader(self, shard: int) -> Any:
        """Returns the shard's reader, which stays open and keeps 8 bytes per record in memory."""
        if self._readers[shard] is None:
            with self._lock:
                if self._readers[shard] is None:
                    path = str(self._pieces[shard].filename)
                    self._readers[shard] = _open_reader(path)
        return self._readers[shard]


def _open_reader(path: str) -> Any:
    return array_record_module.ArrayRecordReader(path, **_READER)


def _allow_open_files(count: int) -> None:
    """Raises the soft limit of open files by `count`, or to the hard limit if that is lower.

    ImageNet keeps 1,024 files open, and 1,024 is a common soft limit. Above the limit,
    ArrayRecord's reader crashes.

    Raises:
        UserError: if the hard limit is too low for `count` files and `_SPARE_FILES` others.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return
    wanted = soft + count
    if hard != resource.RLIM_INFINITY and wanted > hard:
        if count + _SPARE_FILES > hard:
            raise UserError(
                f"{count:,} files must be open, and this process may open {hard:,}.\n"
                "Raise the limit (ulimit -Hn), or prepare the set in fewer files."
            )
        wanted = hard
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def features(image_key: str, label_key: str) -> dict[str, tf.io.FixedLenFeature]:
    """Returns the features of a record that TensorFlow parses: an encoded image and a label."""
    return {
        image_key: tf.io.FixedLenFeature((), tf.string),
        label_key: tf.io.FixedLenFeature((), tf.int64),
    }
