"""Items of a Python program's source: what is an image with a label, and what is refused."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from trainer.data.python.items import WrongItemError, image_and_label, pixels, png

IMAGE = np.arange(4 * 5 * 3, dtype=np.uint8).reshape(4, 5, 3)


@pytest.mark.parametrize("item", [(1, 2), [1, 2], {"image": 1, "label": 2, "id": 3}])
def test_pairs_and_dicts_are_items(item):
    assert image_and_label(item) == (1, 2)


@pytest.mark.parametrize("label", [np.int64(2), np.uint8(2), np.array(2), tf.constant(2)])
def test_integers_of_any_kind_are_labels(label):
    assert image_and_label((1, label)) == (1, 2)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (IMAGE, "it has the type ndarray: give"),
        ((1, 2, 3), "it has the type tuple"),
        ({"img": 1, "label": 2}, "it has the keys 'img', 'label'"),
        ((1, "cat"), "its label has the type str: give an integer"),
        ((1, 0.5), "its label has the type float"),
        ((1, True), "its label has the type bool"),
        ((1, np.array([0, 1])), "its label has the type ndarray"),
    ],
)
def test_other_items_are_refused(item, message):
    with pytest.raises(WrongItemError, match=message):
        image_and_label(item)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_png_has_the_same_pixels(channels):
    image = IMAGE[..., :channels]
    decoded = tf.io.decode_png(png(image), channels).numpy()
    np.testing.assert_array_equal(decoded, image)
    assert np.array_equal(np.atleast_3d(np.asarray(Image.open(io.BytesIO(png(image))))), image)


def test_gray_images_get_a_channel():
    assert pixels(IMAGE[..., 0], None).shape == (4, 5, 1)


@pytest.mark.parametrize(
    ("mode", "channels", "shape"),
    [("RGB", None, 3), ("L", None, 1), ("P", None, 3), ("RGBA", 3, 3), ("1", 3, 3), ("RGB", 1, 1)],
)
def test_pillow_images_are_converted(mode, channels, shape):
    image = Image.fromarray(IMAGE).convert(mode)
    assert pixels(image, channels).shape == (4, 5, shape)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (IMAGE / 255, "the dtype float64: give uint8"),
        (IMAGE.transpose(2, 0, 1), r"the shape \(3, 4, 5\).*channels last"),
        (IMAGE[0, 0], r"the shape \(3,\)"),
        (IMAGE[:0], r"the shape \(0, 5, 3\)"),
        (object(), "values that are not numbers"),
        ("a.png", "dtype <U5"),
    ],
)
def test_other_images_are_refused(image, message):
    with pytest.raises(WrongItemError, match=message):
        pixels(image, None)
