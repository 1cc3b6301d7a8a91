import io

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from trainer.data import decode
from trainer.data.sources import load
from trainer.errors import UserError

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


@pytest.mark.parametrize("side", [6, None])
def test_images_of_too_many_pixels_are_refused(write_set, side):
    """The set says the size of all images, or the files do."""
    features = FEATURES | {"image": tfds.features.Image(shape=(side, side, 3))}
    examples = [{"image": encoded(kind, 6, 40), "label": 1} for kind in ("PNG", "JPEG")]
    data_dir = write_set("small", features, {"train": examples})
    assert load("small", "train", data_dir, 6, max_pixels=36).examples == 2
    with pytest.raises(UserError, match="more pixels than --max_image_pixels=35: raise that limit"):
        load("small", "train", data_dir, 6, max_pixels=35)


def test_the_limit_of_pixels_does_not_change_the_images(write_set):
    """A BMP file is decoded by TensorFlow, as before there was a limit."""
    varying = FEATURES | {"image": tfds.features.Image(shape=(None, None, 3))}
    files = [encoded(kind, 6, 40) for kind in ("PNG", "JPEG", "BMP")]
    examples = [{"image": file, "label": 1} for file in files]
    found = load("varying", "train", write_set("varying", varying, {"train": examples}), 5)
    wanted = [decode.whole(file.getvalue(), (5, 5, 3), max_pixels=None) for file in files]
    np.testing.assert_array_equal(found.images, np.stack(wanted))
