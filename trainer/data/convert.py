"""A prepared set's TFRecord files copied as ArrayRecord, which has an index, beside them.

The folder is then as TFDS lays out a set in two formats, and its description names both. TFDS's own
`convert_format` needs Apache Beam.
"""

import concurrent.futures
import os
import pathlib
import shutil
from collections.abc import Iterator

import tensorflow as tf
import tqdm
from tensorflow_datasets.core import dataset_info
from tensorflow_datasets.core.file_adapters import ArrayRecordFileAdapter

from trainer.config import UserError
from trainer.data import records
from trainer.data.prepare import find_builder, is_prepared


def convert(dataset: str, data_dir: str | None) -> pathlib.Path | None:
    """Makes the ArrayRecord files that are not there yet; returns the folder, None if all were.

    Each file appears whole or not at all, and the description is changed last, so that it can be
    stopped and started again.

    Raises:
        UserError: the set is not prepared here as TFRecord, damaged, or too large for the disk.
    """
    builder = find_builder(dataset, data_dir)
    formats = records.formats(builder) if is_prepared(builder) else set()
    if records.ARRAY_RECORD in formats:
        return None
    if records.TFRECORD not in formats:
        raise UserError(
            f"{dataset} is not prepared as tfrecord in {builder.data_dir_root}: training prepares "
            "it as it needs it. Name the --data_dir of one that is."
        )
    folder = pathlib.Path(builder.data_path)
    shards = [
        (split.filename_template.sharded_filepath(shard_index=i, num_shards=split.num_shards), n)
        for split in builder.info.splits.values()
        for i, n in enumerate(split.shard_lengths)
    ]
    pairs = [
        (str(path), str(path).replace(".tfrecord-", ".array_record-"), n) for path, n in shards
    ]
    missing = [pair for pair in pairs if not os.path.exists(pair[1])]
    try:
        _check_space(folder, [source for source, _, _ in missing])
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as threads:
            copies = [threads.submit(_copy, *pair) for pair in missing]
            for copy in tqdm.tqdm(
                concurrent.futures.as_completed(copies), total=len(copies), unit=" files"
            ):
                copy.result()
    except OSError as error:
        raise UserError(
            f"{dataset} cannot be converted in {folder}: {error.strerror or error}"
        ) from error
    except tf.errors.OpError as error:
        raise UserError(
            f"{dataset} is damaged in {folder}: {' '.join(error.message.split())}.\n"
            "Delete that folder and prepare it again."
        ) from error
    description = builder.info.as_proto
    description.alternative_file_formats.append(records.ARRAY_RECORD.value)
    dataset_info.write_dataset_info_proto(description, dataset_info_dir=builder.data_path)
    return folder


def _check_space(folder: pathlib.Path, sources: list[str]) -> None:
    needed = sum(os.path.getsize(source) for source in sources)
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OSError(f"it needs {needed / 1e9:,.1f} GB and {free / 1e9:,.1f} are free")


def _copy(source: str, target: str, examples: int) -> None:
    def examples_of() -> Iterator[tuple[int, bytes]]:
        yield from enumerate(tf.data.TFRecordDataset(source).as_numpy_iterator())

    temporary = f"{target}.incomplete"
    ArrayRecordFileAdapter.write_examples(temporary, examples_of())
    written = ArrayRecordFileAdapter.num_examples(temporary)
    if written != examples:
        raise OSError(f"{source} has {written:,} of its {examples:,} records: prepare it again")
    os.replace(temporary, target)
