"""Prepared sets whose files lack labels, in both formats."""

import pytest

from tests.support.colour_set import FEATURES, colour_examples
from trainer.data.sources import load
from trainer.errors import UserError


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_a_split_without_labels_is_refused_as_such(write_set, file_format):
    """TFDS gives the label −1 to the test split of ImageNet."""
    unlabelled = [{**example, "label": -1} for example in colour_examples(5)]
    data_dir = write_set(
        "colour",
        FEATURES,
        {"train": colour_examples(5), "test": unlabelled},
        file_format=file_format,
    )
    with pytest.raises(UserError, match=r"ha(s|ve) no label.* choose another split"):
        load("colour", "test", data_dir, None)
