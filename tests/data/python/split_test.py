"""Splits that a call has received: their classes, and how they reach the run."""

import numpy as np
import pytest

from tests.support.squares import NAMES, Source, arrays
from trainer.data.in_memory import InMemoryDataset
from trainer.data.indexed import IndexedDataset
from trainer.data.python import split
from trainer.errors import UserError
from trainer.system import python_objects
from trainer.system.python_objects import PythonObjects


def loaded(data, names=None, run_names=None, *, image_size=None, **options):
    defaults = {"augment": "none", "skip_bad": False, "several_sizes": False}
    with python_objects.giving(PythonObjects({"data": data}, names)):
        return split.load(
            "data", image_size, class_names=run_names, max_pixels=10**6, **defaults | options
        )


def test_labels_are_matched_to_the_run_by_name():
    images, labels = arrays(8)
    reverse = tuple(NAMES[::-1])
    np.testing.assert_array_equal(loaded((images, labels), reverse, NAMES).labels, 3 - labels)
    np.testing.assert_array_equal(loaded(Source(8), reverse, NAMES).labels(), 3 - labels)
    # Without names of their own, labels of arrays are indices into the names of the run.
    np.testing.assert_array_equal(loaded((images, labels), None, NAMES).labels, labels)


def test_without_names_the_classes_are_numbers():
    assert loaded(arrays(16)).class_names == ("0", "1", "2", "3")


@pytest.mark.parametrize("data", [arrays(16), Source(16)])
def test_classes_that_the_run_lacks_are_refused_or_left_out(data):
    with pytest.raises(UserError, match="classes that the run does not know: south east"):
        loaded(data, tuple(NAMES), NAMES[:3])
    found = loaded(data, tuple(NAMES), NAMES[:3], skip_bad=True)
    assert {*found.labels().tolist()} == {-1, 0, 1, 2}


def test_a_source_with_a_class_name_twice_is_refused():
    """Two labels would become one, and the run could not resume."""
    data = Source(16)
    data.classes = ["cat", "crane", "dog", "crane"]
    for run_names in (None, ("cat", "crane", "dog")):
        with pytest.raises(UserError, match=r"`classes` of data has 'crane' twice: .*class_names="):
            loaded(data, run_names=run_names)
    assert loaded(data, tuple(NAMES)).class_names == tuple(NAMES)


def test_a_label_that_cannot_be_a_number_of_a_class_is_refused():
    images = np.zeros((2, 4, 4), np.uint8)
    with pytest.raises(UserError, match="label 1000000007 of data, at index 1, would make 1,000,"):
        loaded((images, np.array([0, 1_000_000_007])))
    assert loaded((images, np.array([0, 2000]))).classes == 2001


def test_random_crops_need_encoded_images():
    assert isinstance(loaded(arrays(8)), InMemoryDataset)
    assert isinstance(loaded(arrays(8), augment="imagenet"), IndexedDataset)
    images, labels = arrays(8)
    two = images.repeat(2, axis=-1), labels
    with pytest.raises(UserError, match="--augment=imagenet needs images of 1 or 3 channels"):
        loaded(two, augment="imagenet")
    with pytest.raises(UserError, match=r"leaving out examples of classes .* needs images of 1 or"):
        loaded(two, tuple(NAMES), NAMES[:3], skip_bad=True)


def test_arrays_keep_their_size_if_training_has_several():
    assert loaded(arrays(8), image_size=6).image_shape == (6, 6, 1)
    assert loaded(arrays(8), image_size=6, several_sizes=True).image_shape == (12, 12, 1)


def test_a_split_that_the_call_lacks_is_refused():
    with pytest.raises(UserError, match=r"trainer\.train\(\.\.\., data=\.\.\.\)"):
        split.load(
            *("data", None),
            augment="none",
            class_names=None,
            max_pixels=1,
            skip_bad=False,
            several_sizes=False,
        )
