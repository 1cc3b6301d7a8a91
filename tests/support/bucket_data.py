"""Sets of examples on the disk and in a bucket, and a machine's cache of what is in buckets."""

import pathlib

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from tests.support.colour_set import FEATURES, colour_examples


def upload(place, folder):
    """Copies the files of a local folder into the bucket's folder `place`."""
    objects = place.connect()
    for path in sorted(each for each in pathlib.Path(folder).rglob("*") if each.is_file()):
        with open(path, "rb") as file:
            objects.upload(str(path.relative_to(folder)), file, path.stat().st_size)


def write_records(folder, counts, shards=1, size=(6, 4), file_format="array_record"):
    """Writes a TFDS set `colour`, with counts[split] examples in each split."""
    features = {**FEATURES, "image": tfds.features.Image(shape=(*size, 3))}

    class Colour(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("1.0.0")

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(features),
                supervised_keys=("image", "label"),
                disable_shuffling=shards == 1,
            )

        def _split_generators(self, manager):
            return {
                split: enumerate(colour_examples(count, *size)) for split, count in counts.items()
            }

        def _generate_examples(self):
            raise NotImplementedError

    Colour.name = "colour"
    how = tfds.download.DownloadConfig(num_shards=shards)
    Colour(data_dir=folder, file_format=file_format).download_and_prepare(download_config=how)


def write_photographs(folder, counts, size=40):
    """Writes an image folder of two classes, dark above and dark below."""
    rng = np.random.default_rng(0)
    for split, count in counts.items():
        for number in range(count):
            label = number % 2
            path = pathlib.Path(folder, split, str(label), f"{number}.jpg")
            path.parent.mkdir(parents=True, exist_ok=True)
            light = np.linspace(40, 200, size)[:, None, None] * np.ones((size, size, 3))
            pixels = (light[::-1] if label else light) + rng.normal(0, 20, (size, size, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
