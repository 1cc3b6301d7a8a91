"""Sets of examples on the disk and in a bucket."""

import pathlib

import tensorflow_datasets as tfds

from tests.support import tfds_sets
from tests.support.colour_set import FEATURES, colour_examples


def upload(place, folder):
    """Copies the files of a local folder into the bucket's folder `place`."""
    objects = place.connect()
    for path in sorted(each for each in pathlib.Path(folder).rglob("*") if each.is_file()):
        with open(path, "rb") as file:
            objects.upload(str(path.relative_to(folder)), file, path.stat().st_size)


def write_records(folder, counts, shards, size=(6, 4), file_format="array_record"):
    """Writes a TFDS set `colour`, with counts[split] examples in each split."""
    features = {**FEATURES, "image": tfds.features.Image(shape=(*size, 3))}
    splits = {split: colour_examples(count, *size) for split, count in counts.items()}
    tfds_sets.write(folder, "colour", features, splits, file_format=file_format, shards=shards)
