"""Measures how fast encoded examples are read from a bucket whose requests take some time.

The bucket is a server of S3's interface on this machine. A proxy in front of it delays each
request. Photographs of 224 pixels are read in the order of training, and decoded:

  disk         from local files
  parts        from the bucket, each record by its own request
  first epoch  from the bucket, while its files are fetched ahead
  later        from the cache

    python -m scripts.benchmarks.benchmark_bucket --milliseconds=30 --rounds=3
"""

import argparse
import os
import pathlib
import statistics
import tempfile
import time

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from tests.support import bucket_data, bucket_servers, tfds_sets
from trainer.config import augment_list
from trainer.data import sources
from trainer.data.bucket import open_folders
from trainer.data.bucket.folder import BucketFolder
from trainer.data.pipeline import ExampleStream, training
from trainer.system.cores import usable

_AUGMENT, _MICRO_BATCH = "imagenet", 128


def write_set(folder: pathlib.Path, examples: int, shards: int) -> None:
    """Writes a TFDS set of JPEG photographs, of about 20 kB each."""
    rng = np.random.default_rng(0)

    def picture() -> np.ndarray:
        rough = rng.integers(0, 256, (14, 14, 3), dtype=np.uint8)
        smooth = Image.fromarray(rough).resize((224, 224), Image.Resampling.BICUBIC)
        return (np.asarray(smooth) // 2 + rng.integers(0, 60, (224, 224, 3))).astype(np.uint8)

    features = {
        "image": tfds.features.Image(shape=(224, 224, 3), encoding_format="jpeg"),
        "label": tfds.features.ClassLabel(num_classes=10),
    }
    pictures = ({"image": picture(), "label": number % 10} for number in range(examples))
    splits = {"train": pictures}
    tfds_sets.write(
        folder, "photographs", features, splits, file_format="array_record", shards=shards
    )


def speed(data_dir: str, cache: str) -> float:
    """Returns the images/s of one epoch, in a cache of its own."""
    open_folders._OPENED = open_folders._Opened()
    open_folders.keep_in(cache)
    source = sources.load("photographs", "train", data_dir, 224, augment=_AUGMENT)
    stream = ExampleStream(source, augment_list.parse(_AUGMENT), seed=0)
    batches = training(
        stream,
        position=0,
        micro_batch_size=_MICRO_BATCH,
        replicas=1,
        local_replicas=range(1),
    ).as_numpy_iterator()
    begin, count = time.perf_counter(), source.examples // _MICRO_BATCH
    for _ in range(count):
        next(batches)
    return count * _MICRO_BATCH / (time.perf_counter() - begin)


def measure(place: bucket_servers.Place, local: str, work: str, round_number: int) -> dict:
    """Returns the images/s of each way of reading, by name."""
    fetch_ahead = BucketFolder._fetch_ahead
    found = {"disk": speed(local, work)}
    BucketFolder._fetch_ahead = lambda self, paths, what: None  # type: ignore[method-assign]
    found["parts"] = speed(place.url, f"{work}/parts-{round_number}")
    BucketFolder._fetch_ahead = fetch_ahead  # type: ignore[method-assign]
    found["first epoch"] = speed(place.url, f"{work}/whole-{round_number}")
    time.sleep(5)  # The last files arrive.
    found["later"] = speed(place.url, f"{work}/whole-{round_number}")
    return found


def main() -> None:
    """Prints the median images/s, and the range, of each way of reading."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--milliseconds", type=float, default=30, help="Delay of each request.")
    parser.add_argument("--examples", type=int, default=4096)
    parser.add_argument("--shards", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as work, bucket_servers.server("s3") as address:
        write_set(pathlib.Path(work, "set"), asked.examples, asked.shards)
        proxy = bucket_servers.Proxy("s3", address)
        place = bucket_servers.Place("s3", proxy, "data")
        os.environ.update(place.environment)
        bucket_data.upload(place, pathlib.Path(work, "set"))
        proxy.rule = lambda request: time.sleep(asked.milliseconds / 1000)
        rounds = [measure(place, f"{work}/set", work, n) for n in range(asked.rounds)]
        print(
            f"{len(usable())} cores, {asked.examples} images, {asked.milliseconds:g} ms a request"
        )
        for name in rounds[0]:
            values = [each[name] for each in rounds]
            middle, low, high = statistics.median(values), min(values), max(values)
            print(f"{name:12} {middle:7,.0f} images/s ({low:,.0f} to {high:,.0f})")
    os._exit(0)


if __name__ == "__main__":
    main()
