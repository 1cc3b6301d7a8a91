"""Prepared sets whose files cannot be read, in both formats."""

import pathlib

import pytest

from tests.support.colour_set import FEATURES, colour_examples
from trainer.data.sources import load
from trainer.errors import UserError


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_a_folder_in_place_of_a_file_is_refused(write_set, file_format):
    """Root may read every file, so the test cannot take the permission away."""
    data_dir = write_set("colour", FEATURES, {"train": colour_examples(9)}, file_format=file_format)
    (path,) = pathlib.Path(data_dir).glob(f"colour/*/*.{file_format}-*")
    path.unlink()
    path.mkdir()
    with pytest.raises(
        UserError, match=rf"colour train: {path} is not a file .*\nMake it readable"
    ):
        load("colour", "train", data_dir, None)
