import dataclasses

import numpy as np
import pytest

from trainer.data.images import Images
from trainer.data.split_overlap import count_identical, warnings
from trainer.data.splits import count_shared, split_infos

INFOS = split_infos({"train": 100, "test": 20})


@pytest.mark.parametrize(
    ("first", "second", "shared"),
    [
        ("train", "test", 0),
        ("train", "train", 100),
        ("train[:90%]", "train[80%:]", 10),
        ("train[:90%]", "train[90%:]", 0),
        ("train[:50]+test", "train[40:60]+test[:5]", 15),
        ("train[10:20]", "train[12:13]", 1),
    ],
)
def test_shared_examples_are_counted(first, second, shared):
    assert count_shared(INFOS, first, second, "set") == shared


def images(pixels):
    array = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 1), np.uint8)[pixels]
    return Images(array, np.zeros(len(array), np.int64), ("a",), "some")


def test_identical_pictures_are_counted():
    assert count_identical(images(range(8)), images([1, 8, 1, 7, 9])) == 3
    assert count_identical(images(range(8)), images(range(8, 12))) == 0


def test_a_set_that_is_too_large_is_not_looked_through(monkeypatch):
    monkeypatch.setattr("trainer.data.split_overlap._MOST_BYTES", 100)
    assert count_identical(images(range(8)), images([1])) is None


def folder_of(tmp_path):
    for part in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(5):
                (tmp_path / part / name / f"{i}.jpg").touch()
    return f"image_folder:{tmp_path}"


def test_a_folders_splits(tmp_path):
    dataset = folder_of(tmp_path)
    some, others = images(range(8)), images(range(8, 12))
    assert warnings(dataset, None, ("train", some), ("val", others)) == []
    (line,) = warnings(dataset, None, ("train[:80%]", some), ("train[70%:]", others))
    assert line.startswith(
        "1 of the 4 images of train[70%:] are in train[:80%] too: the evaluation"
    )
    (line,) = warnings(dataset, None, ("train", some), ("val", dataclasses.replace(some)))
    assert line == "8 of the 8 pictures of val are in train too, pixel for pixel"
