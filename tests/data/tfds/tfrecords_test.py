import io

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from trainer.data import decode
from trainer.data.sources import load

FEATURES = {
    "image": tfds.features.Image(shape=(6, 6, 3)),
    "label": tfds.features.ClassLabel(num_classes=2),
}


def encoded(kind, side, grey):
    file = io.BytesIO()
    Image.new("RGB", (side, side), (grey, 0, 255 - grey)).save(file, kind)
    file.seek(0)
    return file


def test_files_of_all_kinds_and_another_size_are_decoded(write_set):
    """TFDS checks the size of an array, and not that of a file: such an image is resized."""
    kinds = [("PNG", 6), ("JPEG", 6), ("BMP", 6), ("PNG", 9)]
    for count in (3, 4):
        examples = [
            {"image": encoded(kind, side, 40 * number), "label": number % 2}
            for number, (kind, side) in enumerate(kinds[:count])
        ]
        name = f"files{count}"
        data_dir = write_set(name, FEATURES, {"train": examples})
        found = load(name, "train", data_dir, None)
        wanted = [
            decode.whole(each["image"].getvalue(), (6, 6, 3), max_pixels=None) for each in examples
        ]
        np.testing.assert_array_equal(found.images, np.stack(wanted))
        assert found.labels.tolist() == [number % 2 for number in range(count)]
