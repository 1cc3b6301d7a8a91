"""Finds the files of a split in a prepared TFDS set, without TensorFlow."""

from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import dataset_info

from trainer.data.bucket import open_folders
from trainer.data.bucket.folder import BucketFolder

ARRAY_RECORD = tfds.core.FileFormat.ARRAY_RECORD
TFRECORD = tfds.core.FileFormat.TFRECORD


def formats(builder: tfds.core.DatasetBuilder) -> set[tfds.core.FileFormat]:
    """Returns the file formats in which a set is prepared."""
    others = builder.info.as_proto.alternative_file_formats
    return {builder.info.file_format, *map(tfds.core.FileFormat, others)}


def pieces(
    builder: tfds.core.DatasetBuilder, split: str, file_format: tfds.core.FileFormat
) -> list[Any]:
    """Returns a split's pieces: each has a file's name, and numbers of records to skip and take."""
    splits = dataset_info.get_split_dict_from_proto(
        builder.info.as_proto, builder.data_path, file_format
    )
    return splits[split].file_instructions


def fetch(found: list[Any], name: str, *, whole: bool) -> BucketFolder | None:
    """Fetches the files of `found` if they are in a bucket; returns their folder, or else None.

    Args:
        found: pieces of a split, from `pieces`.
        name: name of the split for messages.
        whole: whether to wait for the files, instead of fetching them in threads.
    """
    paths = sorted({str(piece.filename) for piece in found})
    folder = open_folders.of(paths[0]) if paths else None
    if folder:
        folder.need(paths, name, now=whole)
    return folder
