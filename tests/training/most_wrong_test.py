import base64
import dataclasses
import io
import math

import numpy as np
import pytest
from PIL import Image

from trainer.data import sources
from trainer.data.bad_examples import BadExamples
from trainer.data.in_memory import InMemoryDataset
from trainer.training import most_wrong
from trainer.training.evaluation import Predictions

RNG = np.random.default_rng(0)


def in_memory(count):
    pixels = RNG.integers(0, 256, (count, 4, 4, 3), np.uint8)
    return InMemoryDataset(pixels, np.zeros(count, np.int64), ("a", "b"), "random")


def predictions(labels, predicted, losses):
    """Predictions by softmax, all with the same confidence."""
    count = len(labels)
    return Predictions(
        *(np.arange(count), labels, predicted, np.full(count, 0.75)), losses, np.exp(-losses)
    )


def shown(found):
    """The picture of an entry, of one pixel for each pixel of the image."""
    content = base64.b64decode(found["thumbnail"])
    return np.asarray(Image.open(io.BytesIO(content)))[::24, ::24]


def test_the_wrong_examples_of_the_largest_loss_come_first():
    count = 60
    source = in_memory(count)
    labels, losses = RNG.integers(0, 2, count), RNG.random(count).round(1)  # Some are equal.
    predicted = np.where(RNG.random(count) < 0.6, 1 - labels, labels)
    found = most_wrong.find(
        predictions(labels, predicted, losses),
        source,
        ["cat", "dog"],
        "none",
    )
    wrong = [i for i in range(count) if labels[i] != predicted[i]]
    expected = sorted(wrong, key=lambda i: (-losses[i], i))[:20]
    assert [each["index"] for each in found] == expected
    for each, i in zip(found, expected, strict=True):
        assert each["path"] is None
        assert (each["class"], each["predicted"]) == tuple(
            ("cat", "dog")[c] for c in (labels[i], predicted[i])
        )
        assert each["class_probability"] == pytest.approx(math.exp(-losses[i]))
        assert each["predicted_probability"] == 0.75
        np.testing.assert_array_equal(shown(each), source.images[i])


def test_indices_are_those_of_the_split_when_examples_are_left_out():
    source = in_memory(9)
    found = most_wrong.find(
        dataclasses.replace(
            predictions(np.array([0, 1]), np.array([1, 1]), np.array([5.0, 0.1])),
            indices=np.array([2, 8]),
        ),
        source,
        ["a", "b"],
        "none",
    )
    assert [each["index"] for each in found] == [2]
    np.testing.assert_array_equal(shown(found[0]), source.images[2])


def test_a_model_that_is_always_right_has_none():
    right = predictions(np.ones(3, int), np.ones(3, int), np.zeros(3))
    assert most_wrong.find(right, in_memory(3), ["a", "b"], "none") == []


def test_pictures_of_a_folder_have_their_paths_in_memory_and_on_the_disk(tmp_path):
    for i in range(8):
        folder = tmp_path / "val" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((4, 4, 3), 30 * i, np.uint8)).save(folder / f"{i}.png")
    wrong = predictions(np.zeros(8, int), np.ones(8, int), np.arange(8.0))
    for skip in (False, True):  # If bad examples are left out, the set stays on the disk.
        source = sources.load(
            f"image_folder:{tmp_path}", "val", None, 4, bad=BadExamples(skip=skip)
        )
        assert isinstance(source, InMemoryDataset) != skip
        found = most_wrong.find(wrong, source, ["a", "b"], "none")
        assert [each["index"] for each in found] == list(range(7, -1, -1))
        for each in found:
            light = np.asarray(Image.open(each["path"]))
            np.testing.assert_array_equal(shown(each), light)
