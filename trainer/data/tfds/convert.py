"""Copies the TFRecord files of a prepared set to ArrayRecord files, which have an index.

The new files lie beside the old files. After the conversion, the set's description file names both
formats, as TFDS expects. TFDS's own `convert_format` is not used, because it needs Apache Beam.
"""

import concurrent.futures
import os
import pathlib
import shutil
import tempfile

import tensorflow as tf
import tensorflow_datasets as tfds
import tqdm
from tensorflow_datasets.core import dataset_info
from tensorflow_datasets.core.file_adapters import ArrayRecordFileAdapter

from trainer.config import local_path
from trainer.data import image_listing
from trainer.data.tfds import set_files
from trainer.data.tfds.prepare import find_builder, is_prepared, lock_preparation
from trainer.errors import UserError
from trainer.system.cores import usable


def convert(dataset: str, data_dir: str | None) -> pathlib.Path | None:
    """Writes a set's missing ArrayRecord files, and names the new format in its description.

    The conversion can be stopped and started again, because each file is written atomically, and
    the description is changed last.

    Returns:
        The set's folder, or None if the description already names ArrayRecord.

    Raises:
        UserError: if the set is not prepared as TFRecord on this machine, is damaged, or does not
            fit on the disk.
    """
    if image_listing.is_listed(dataset):
        raise UserError(f"{dataset} needs no converting: its files are read by name.")
    if data_dir and local_path.scheme(data_dir):
        raise UserError(
            f"{dataset} is in {data_dir}, and can be converted only on a local disk.\n"
            "Copy the set to a local folder, and name the folder with --data_dir."
        )
    builder = find_builder(dataset, data_dir)
    if not is_prepared(builder) or set_files.ARRAY_RECORD in set_files.formats(builder):
        return _convert(dataset, builder)
    with lock_preparation(builder, dataset):  # Two processes must not write one file.
        return _convert(dataset, find_builder(dataset, data_dir))


def _convert(dataset: str, builder: tfds.core.DatasetBuilder) -> pathlib.Path | None:
    formats = set_files.formats(builder) if is_prepared(builder) else set()
    if set_files.ARRAY_RECORD in formats:
        return None
    if formats and set_files.TFRECORD not in formats:
        others = " and ".join(sorted(each.value for each in formats))
        raise UserError(
            f"{dataset} is prepared as {others}, and only tfrecord is converted. Prepare it in "
            f"another folder:\n{set_files.build_command(dataset)}"
        )
    if not formats:
        raise UserError(
            f"{dataset} is not prepared in {builder.data_dir_root}: training prepares "
            "the format it needs. To convert a prepared set, give its --data_dir."
        )
    folder = pathlib.Path(builder.data_path)
    sources, targets = _files(builder, set_files.TFRECORD), _files(builder, set_files.ARRAY_RECORD)
    missing = [
        (source, target, examples)
        for (source, examples), (target, _) in zip(sources, targets, strict=True)
        if not os.path.exists(target)
    ]
    try:
        _check_space(folder, [source for source, _, _ in missing])
        _copy_all(missing)
        _describe(builder, folder)
    # ArrayRecord's writer raises RuntimeError if the disk is full.
    except (OSError, RuntimeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error
        raise UserError(f"{dataset} cannot be converted in {folder}: {reason}") from error
    except tf.errors.OpError as error:
        raise UserError(
            f"{dataset} is damaged in {folder}: {' '.join(error.message.split())}.\n"
            "Delete that folder and prepare it again."
        ) from error
    return folder


def _files(
    builder: tfds.core.DatasetBuilder, file_format: tfds.core.FileFormat
) -> list[tuple[str, int]]:
    """Returns path and number of records of each file of a format, including missing files."""
    splits = dataset_info.get_split_dict_from_proto(
        builder.info.as_proto, builder.data_path, file_format
    )
    return [
        (str(path), examples)
        for split in splits.values()
        for path, examples in zip(split.filepaths, split.shard_lengths, strict=True)
    ]


def _copy_all(files: list[tuple[str, str, int]]) -> None:
    threads = concurrent.futures.ThreadPoolExecutor(len(usable()))
    try:
        copies = [threads.submit(_copy, *file) for file in files]
        done = concurrent.futures.as_completed(copies)
        # disable=None shows the bar only on a terminal.
        for copy in tqdm.tqdm(done, total=len(copies), unit=" files", disable=None):
            copy.result()
    finally:
        # After an error or Ctrl-C, no further copy starts.
        threads.shutdown(cancel_futures=True)


def _describe(builder: tfds.core.DatasetBuilder, folder: pathlib.Path) -> None:
    """Adds ArrayRecord to the set's description, and replaces the description's file atomically."""
    if set_files.ARRAY_RECORD in set_files.described(builder):  # Its files had been deleted.
        return
    description = builder.info.as_proto
    description.alternative_file_formats.append(set_files.ARRAY_RECORD.value)
    with tempfile.TemporaryDirectory(dir=folder) as new:
        dataset_info.write_dataset_info_proto(description, dataset_info_dir=new)
        (name,) = os.listdir(new)
        os.replace(os.path.join(new, name), folder / name)


def _check_space(folder: pathlib.Path, sources: list[str]) -> None:
    needed = sum(os.path.getsize(source) for source in sources)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(f"it needs {needed / 1e9:,.1f} GB and {free / 1e9:,.1f} GB are free")


def _copy(source: str, target: str, examples: int) -> None:
    temporary = pathlib.Path(f"{target}.incomplete")
    try:
        copied = enumerate(tf.data.TFRecordDataset(source).as_numpy_iterator())
        ArrayRecordFileAdapter.write_examples(temporary, copied)
        written = ArrayRecordFileAdapter.num_examples(temporary)
        if written != examples:
            raise OSError(f"{source} has {written:,} of its {examples:,} records: prepare it again")
        temporary.replace(target)
    finally:
        temporary.unlink(missing_ok=True)  # After an error, this frees the disk space.
