"""Prepares a folder's files as an ArrayRecord set by TFDS, and measures how fast it is read.

benchmark_input.py runs this program. It reads chunks of the set in the order of training, without
decoding: once from the page cache and once from the disk. It prints JSON.
"""

import argparse
import json
import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import numpy as np

NAME = "photographs"
CALLS = 200  # These read 3,200 examples.


def write(folder: pathlib.Path, data_dir: pathlib.Path) -> None:
    """Prepares the files in `folder` as the training split."""
    import tensorflow_datasets as tfds

    classes = sorted(path.name for path in folder.iterdir())

    class Photographs(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
        VERSION = tfds.core.Version("1.0.0")

        def _info(self) -> tfds.core.DatasetInfo:
            image = tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg")
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(
                    {"image": image, "label": tfds.features.ClassLabel(names=classes)}
                ),
                supervised_keys=("image", "label"),
            )

        def _split_generators(self, _: Any) -> dict[str, Iterator[tuple[str, dict]]]:
            return {"train": self._generate_examples()}

        def _generate_examples(self) -> Iterator[tuple[str, dict]]:
            for path in sorted(folder.glob("*/*")):
                yield path.name, {"image": str(path), "label": path.parent.name}

    Photographs.name = NAME
    Photographs(data_dir=data_dir, file_format="array_record").download_and_prepare()


def counted() -> np.ndarray:
    """Returns this process's read calls, the bytes that they returned, and those from the disk."""
    lines = pathlib.Path("/proc/self/io").read_text().splitlines()
    counts = {name: int(value) for name, value in (line.split(": ") for line in lines)}
    return np.array([counts["syscr"], counts["rchar"], counts["read_bytes"]])


def forget(data_dir: pathlib.Path) -> None:
    """Removes the set's files from the page cache, so that the next read is from the disk."""
    for path in data_dir.rglob("*.array_record*"):
        with path.open("rb") as file:
            os.fsync(file.fileno())
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def read(data_dir: pathlib.Path) -> dict[str, str]:
    """Measures the cost of reading the set; returns the results as texts."""
    import tensorflow as tf

    from trainer.data import chunk_decoding, shuffle, sources

    source = sources.load(NAME, "train", str(data_dir), 224, augment="imagenet")
    chunk = chunk_decoding.chunk_size(128)

    def fetch(call: int, cached: bool) -> tuple[float, np.ndarray]:
        """Fetches one chunk; returns the milliseconds, and the increase of `counted`."""
        positions = call * chunk + tf.range(chunk, dtype=tf.int64)
        indices = shuffle.example_indices(positions, source.examples, 0)
        if not cached:
            forget(data_dir)
        before, start = counted(), time.perf_counter()
        source.fetch(indices)
        return 1e3 * (time.perf_counter() - start), counted() - before

    for call in range(CALLS):  # The first calls open the files.
        fetch(call, cached=True)
    costs = {}
    for state in ("page cache", "disk"):
        fetched = [fetch(call, cached=state == "page cache") for call in range(CALLS)]
        milliseconds, counts = zip(*fetched, strict=True)
        calls, size, from_disk = np.mean(counts, axis=0) / chunk
        median, most = np.percentile(milliseconds, [50, 99])
        costs[f"ArrayRecord, {chunk} examples a call, from the {state}"] = (
            f"{calls:.2f} reads and {size / 1e3:.1f} KB an example, {from_disk / 1e3:.1f} KB of it "
            f"from the disk; {median:.1f} ms a call, 99% under {most:.1f}"
        )
    return costs


def main() -> None:
    """Writes the set, reads it and prints the costs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path, help="a folder of classes")
    parser.add_argument("data_dir", type=pathlib.Path, help="folder for the prepared set")
    arguments = parser.parse_args()
    write(arguments.folder, arguments.data_dir)
    print(json.dumps(read(arguments.data_dir)))


if __name__ == "__main__":
    main()
