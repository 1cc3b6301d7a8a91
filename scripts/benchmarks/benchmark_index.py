"""Measures a pipeline over a million small records that starts at any position.

benchmark_input.py runs this program. It prints the memory of the index, the growth of memory while
the records are read, and the time from building a pipeline to its first batch, at positions up to
10¹². There are a thousand kinds of records, so that the program can check the first batches.
"""

import argparse
import json
import os
import pathlib
import resource
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

NAME = "million"
EXAMPLES, SHARDS, KINDS = 1_000_000, 64, 1_000
BATCH_SIZE = 128
BATCHES = 1_000
POSITIONS = (0, 10**6 - 64, 10**9, 10**12)


def write(folder: pathlib.Path) -> None:
    """Writes the set in TFDS's layout; record i has kind i mod 1,000, which is its label."""
    import tensorflow_datasets as tfds
    from array_record.python import array_record_module

    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
            "label": tfds.features.ClassLabel(num_classes=KINDS),
        }
    )
    images = np.random.default_rng(0).integers(0, 256, (KINDS, 8, 8, 1), np.uint8)
    kinds = [
        features.serialize_example({"image": images[kind], "label": kind}) for kind in range(KINDS)
    ]
    lengths = [len(part) for part in np.array_split(np.arange(EXAMPLES), SHARDS)]
    template = tfds.core.ShardedFileTemplate(
        dataset_name=NAME, data_dir=folder, split="train", filetype_suffix="array_record"
    )
    folder.mkdir(parents=True)
    number = 0
    for shard, length in enumerate(lengths):
        path = template.sharded_filepath(shard_index=shard, num_shards=SHARDS)
        writer = array_record_module.ArrayRecordWriter(str(path), "group_size:1")
        for _ in range(length):
            writer.write(kinds[number % KINDS])
            number += 1
        writer.close()
    split = tfds.core.SplitInfo(
        name="train", shard_lengths=lengths, num_bytes=0, filename_template=template
    )
    tfds.folder_dataset.write_metadata(
        data_dir=folder,
        features=features,
        split_infos=[split],
        supervised_keys=("image", "label"),
        check_data=False,  # The check does not support ArrayRecord.
    )


def resident() -> float:
    """Returns the memory that this process holds now, in MB."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def read(data_dir: pathlib.Path) -> dict[str, str]:
    """Measures the cost of an index of a million records; returns the results as texts."""
    from trainer.config import augment_list
    from trainer.data import pipeline, shuffle, sources
    from trainer.data.bad_examples import BadExamples

    bad = BadExamples(skip=True)  # Without this, `load` would read the set into memory.
    before = resident()
    source = sources.load(NAME, "train", str(data_dir), None, bad=bad)

    def batches(position: int):
        return pipeline.training(
            pipeline.ExampleStream(source, augment_list.parse("none"), 0, bad),
            position=position,
            micro_batch_size=BATCH_SIZE,
            replicas=1,
            local_replicas=range(1),
        ).as_numpy_iterator()

    seconds = []
    for position in POSITIONS:
        start = time.perf_counter()
        _, labels, first = next(batches(position))
        seconds.append(f"{time.perf_counter() - start:.2f} s at {position:,}")
        indices = shuffle.example_indices(position + np.arange(BATCH_SIZE), EXAMPLES, 0)
        assert first == position
        np.testing.assert_array_equal(labels, indices % KINDS)
    opened = resident()
    iterator, memory = batches(0), []
    for _ in range(4):
        for _ in range(BATCHES // 4):
            next(iterator)
        memory.append(f"{resident():,.0f}")
    return {
        f"{EXAMPLES:,} records, to the first batch": ", ".join(seconds),
        "memory": f"{before:,.0f} MB before, {opened:,.0f} with its {SHARDS} files open, "
        f"{', '.join(memory)} while {BATCHES * BATCH_SIZE:,} records are read",
        "bad examples": str(bad.count),
    }


def main() -> None:
    """Writes the set, reads it and prints the costs."""
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        write(pathlib.Path(folder) / NAME / "1.0.0")
        print(json.dumps(read(pathlib.Path(folder)), indent=1))


if __name__ == "__main__":
    main()
