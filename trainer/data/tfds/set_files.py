"""Finds the files of a split in a prepared TFDS set, without TensorFlow."""

import os
from typing import Any

import tensorflow_datasets as tfds
from tensorflow_datasets.core import dataset_info

from trainer.data.bucket import open_folders
from trainer.data.bucket.folder import BucketFolder
from trainer.errors import UserError

ARRAY_RECORD = tfds.core.FileFormat.ARRAY_RECORD
TFRECORD = tfds.core.FileFormat.TFRECORD


def formats(builder: tfds.core.DatasetBuilder) -> set[tfds.core.FileFormat]:
    """Returns the file formats of a prepared set, without those that have no file.

    If no format has a file, all formats are returned that the set's description names.
    """
    found, files = described(builder), os.listdir(builder.data_path)
    return {one for one in found if any(f".{one.file_suffix}" in file for file in files)} or found


def described(builder: tfds.core.DatasetBuilder) -> set[tfds.core.FileFormat]:
    """Returns the file formats that the description of a set names."""
    others = builder.info.as_proto.alternative_file_formats
    return {builder.info.file_format, *map(tfds.core.FileFormat, others)}


def build_command(dataset: str) -> str:
    """Returns TFDS's command that prepares a set as ArrayRecord in another folder."""
    return f"tfds build {dataset} --file_format={ARRAY_RECORD.value} --data_dir=FOLDER"


def pieces(
    builder: tfds.core.DatasetBuilder, split: str, file_format: tfds.core.FileFormat
) -> list[Any]:
    """Returns a split's pieces: each has a file's name, and numbers of records to skip and take."""
    splits = dataset_info.get_split_dict_from_proto(
        builder.info.as_proto, builder.data_path, file_format
    )
    return splits[split].file_instructions


def check_readable(found: list[Any], name: str) -> None:
    """Checks that the files of a split that exist can be read.

    Args:
        found: pieces of the split, from `pieces`.
        name: name of the split for messages.

    Raises:
        UserError: if a file is a folder, or this process has no permission to read it.
    """
    for path in (str(piece.filename) for piece in found):
        if os.path.exists(path) and not (os.path.isfile(path) and os.access(path, os.R_OK)):
            raise UserError(
                f"{name}: {path} is not a file that this process can read.\n"
                "Make it readable, or delete its folder and prepare the set again."
            )


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
