import dataclasses
import os

import numpy as np
import pytest

from trainer.data import image_folder_source
from trainer.data.in_memory import InMemoryDataset
from trainer.data.split_overlap import identical, warnings
from trainer.data.tfds.splits import count_shared, split_infos

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
    return InMemoryDataset(array, np.zeros(len(array), np.int64), ("a",), "some")


def test_identical_pictures_are_paired():
    assert identical(images(range(8)), images([1, 8, 1, 7, 9])) == [
        ("index 1", "index 0"),
        ("index 1", "index 2"),
        ("index 7", "index 3"),
    ]
    assert identical(images(range(8)), images(range(8, 12))) == []


def test_a_set_that_is_too_large_is_not_compared(monkeypatch):
    monkeypatch.setattr("trainer.data.split_overlap._MOST_BYTES", 100)
    assert identical(images(range(8)), images([1])) is None


def folder_of(tmp_path):
    for part in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / part / name).mkdir(parents=True)
            for i in range(5):
                (tmp_path / part / name / f"{i}.jpg").touch()
    return f"image_folder:{tmp_path}"


def test_overlapping_splits_of_a_folder_are_reported(tmp_path):
    dataset = folder_of(tmp_path)
    some, others = images(range(8)), images(range(8, 12))
    assert warnings(dataset, None, ("train", some), ("val", others)) == []
    (line,) = warnings(dataset, None, ("train[:80%]", some), ("train[70%:]", others))
    assert line.startswith(
        "1 of the 4 images of train[70%:] are in train[:80%] too: the evaluation"
    )
    (line,) = warnings(dataset, None, ("train", some), ("val", dataclasses.replace(some)))
    assert (
        line == "8 of the 8 pictures of val are in train too, such as index 0 (in train: index 0)"
    )
    named = dataclasses.replace(some, path="cat/{}.png".format)
    (line,) = warnings(dataset, None, ("train", named), ("val", named))
    assert "such as cat/0.png (in train: cat/0.png)" in line


def folders_of_files(tmp_path):
    for name, content in [
        ("train/cat/1.jpg", b"one"),
        ("train/cat/2.jpg", b"two"),
        ("train/dog/3.jpg", b"other"),
        ("val/cat/a.jpg", b"six"),
        ("val/cat/copy of 2.jpg", b"two"),
        ("val/dog/c.jpg", b"longer"),
    ]:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    dataset = f"image_folder:{tmp_path}"
    return [
        image_folder_source.load(dataset, part, None, 8, 10**6, False) for part in ("train", "val")
    ]


def test_a_copied_file_is_named_with_its_original(tmp_path):
    training, evaluation = folders_of_files(tmp_path)
    (pair,) = identical(training, evaluation)
    assert pair == (f"{tmp_path}/train/cat/2.jpg", f"{tmp_path}/val/cat/copy of 2.jpg")
    both = ("train", training), ("val", evaluation)
    (line,) = warnings(f"image_folder:{tmp_path}", None, *both)
    assert line.startswith("1 of the 3 pictures of val are in train too, such as ")
    assert line.endswith(f"copy of 2.jpg (in train: {tmp_path}/train/cat/2.jpg)")


def in_memory(source, size):
    pixels = np.zeros((source.examples, size, size, 3), np.uint8)
    labels = np.zeros(source.examples, np.int64)
    return InMemoryDataset(pixels, labels, source.class_names, source.name, path=source.path)


@pytest.mark.parametrize("in_training", [True, False])
def test_pictures_of_two_sizes_are_compared_by_their_files(tmp_path, in_training):
    training, evaluation = folders_of_files(tmp_path)
    wanted = identical(training, evaluation)
    assert len(wanted) == 1
    shown = in_memory(training, 8) if in_training else training
    assert identical(shown, in_memory(evaluation, 12)) == wanted


def test_records_of_two_sizes_are_not_compared():
    other = dataclasses.replace(images([1]), images=np.zeros((1, 5, 5, 1), np.uint8))
    assert identical(images(range(8)), other) is None


def test_missing_and_special_files_are_skipped(tmp_path):
    training, evaluation = folders_of_files(tmp_path)
    (tmp_path / "train/cat/1.jpg").unlink()
    os.mkfifo(tmp_path / "train/cat/1.jpg")
    (tmp_path / "val/cat/a.jpg").unlink()
    assert len(identical(training, evaluation)) == 1


@pytest.mark.parametrize("bound", ["_MOST_BYTES", "_MOST_FILES"])
def test_large_folders_are_not_compared(tmp_path, monkeypatch, bound):
    monkeypatch.setattr(f"trainer.data.split_overlap.{bound}", 5)
    training, evaluation = folders_of_files(tmp_path)
    assert identical(training, evaluation) is None
    (line,) = warnings(f"image_folder:{tmp_path}", None, ("train", training), ("val", evaluation))
    assert "may be in train too" in line
