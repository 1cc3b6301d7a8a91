"""Arrays of a Python program: what they may be, and what is refused by name."""

import numpy as np
import pytest

from tests.support.squares import NAMES, arrays
from trainer.data.python.arrays import check_range, checked, load
from trainer.errors import UserError

IMAGES, LABELS = arrays(8)


def test_labels_in_a_column_and_gray_images_are_accepted():
    images, labels = checked((IMAGES[..., 0], LABELS[:, None].astype(np.uint8)), "data")
    np.testing.assert_array_equal(images, IMAGES)
    np.testing.assert_array_equal(labels, LABELS)
    assert labels.dtype == np.int64


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (IMAGES / 255, LABELS, "images of data have the dtype float64: give uint8"),
        (IMAGES[0, 0], LABELS, r"images of data have the shape \(12, 1\)"),
        (IMAGES, LABELS / 2, "labels of data have the dtype float64"),
        (IMAGES, np.eye(4, dtype=int)[LABELS], r"labels.argmax\(axis=1\)"),
        (IMAGES, LABELS[:5], r"labels of the shape \(5,\) for 8 images"),
        (IMAGES[:0], LABELS[:0], "data has no examples"),
        (IMAGES, LABELS - 9, "label -.* of data, at index 0, is not a class"),
    ],
)
def test_wrong_arrays_are_named(images, labels, message):
    with pytest.raises(UserError, match=message):
        checked((images, labels), "data")


def test_a_label_above_the_classes_is_named_with_its_index():
    labels = np.array([0, 1, 4, 0, 0, 0, 0, 0])
    with pytest.raises(UserError, match="label 4 of data, at index 2, is not one of 4 classes"):
        check_range(labels, 4, "data")


def test_images_are_resized_and_classes_counted():
    found = load(IMAGES, LABELS, NAMES, 6, "data")
    assert found.image_shape == (6, 6, 1)
    assert found.class_names == tuple(NAMES)
    assert found.summary.startswith("data: 8 images, 4 classes (")


def test_the_digest_is_that_of_images_and_labels():
    digest = load(IMAGES, LABELS, NAMES, None, "data").digest
    assert load(IMAGES.copy(), LABELS, NAMES, 6, "data").digest == digest
    images, labels = IMAGES.copy(), LABELS.copy()
    images[3, 0, 0, 0] += 1
    labels[0] = (labels[0] + 1) % 4
    assert load(images, LABELS, NAMES, None, "data").digest != digest
    assert load(IMAGES, labels, NAMES, None, "data").digest != digest
