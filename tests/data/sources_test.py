"""Loads tiny real TFDS sets by name, and refuses sets that cannot be trained on."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds

from tests.support.colour_set import FEATURES, LABEL, colour_examples, stacked
from trainer.config import augment_list
from trainer.data.bad_examples import BadExamples
from trainer.data.in_memory import InMemoryDataset, pixel_statistics
from trainer.data.pipeline import ExampleStream, evaluation, training
from trainer.data.sources import labels, load
from trainer.errors import UserError

NONE = augment_list.parse("none")


def test_images_and_labels_have_the_order_of_the_records(write_set):
    train, test = colour_examples(600), colour_examples(7)
    data_dir = write_set("colour", FEATURES, {"train": train, "test": test})
    for split, expected in (
        ("train", train),
        ("train[300:310]", train[300:310]),
        ("test[5:]+train[:2]", test[5:] + train[:2]),
    ):
        images = load("colour", split, data_dir, None)
        assert images.images.dtype == np.uint8
        assert images.labels.dtype == np.int64
        np.testing.assert_array_equal(images.images, stacked(expected))
        assert images.labels.tolist() == [example["label"] for example in expected]
        assert images.classes == 5
        assert images.images.ctypes.data % 64 == 0


@pytest.mark.parametrize("file_format", ["array_record", "tfrecord"])
def test_either_format_gives_the_same(write_set, file_format):
    examples = colour_examples(600)
    data_dir = write_set("colour", FEATURES, {"train": examples}, file_format=file_format)
    for split, expected in (
        ("train", examples),
        ("train[20:30]+train[:7]", [*examples[20:30], *examples[:7]]),
    ):
        images = load("colour", split, data_dir, None)
        np.testing.assert_array_equal(images.images, stacked(expected))
        assert images.labels.tolist() == [example["label"] for example in expected]


def test_a_missing_file_and_an_empty_description_are_refused(write_set):
    data_dir = write_set(
        "colour", FEATURES, {"train": colour_examples(40)}, file_format="array_record"
    )
    (path,) = pathlib.Path(data_dir).glob("colour/*/*.array_record-*")
    path.rename(path.with_name("elsewhere"))
    with pytest.raises(UserError, match=rf"1 of 1 files are missing, such as {path}"):
        load("colour", "train", data_dir, None)
    path.with_name("dataset_info.json").write_text("")
    with pytest.raises(UserError, match="--dataset=colour: "):
        load("colour", "train", data_dir, None)


def test_a_damaged_record_is_named_and_the_others_are_read(write_set, logged):
    """One byte of a record in the ArrayRecord file is flipped."""
    examples = colour_examples(40)
    data_dir = write_set("colour", FEATURES, {"train": examples}, file_format="array_record")
    (path,) = pathlib.Path(data_dir).glob("colour/*/*.array_record-*")
    damaged = bytearray(path.read_bytes())
    # The file has one record a chunk after its first header, so this byte is in one record's data.
    damaged[1500] ^= 255
    path.write_bytes(damaged)
    with pytest.raises(
        UserError,
        match=r"(?s)record \d+ of .*array_record.* cannot be used: its file is .*--skip",
    ):
        load("colour", "train", data_dir, None)
    bad = BadExamples(skip=True)
    source = load("colour", "train", data_dir, None, bad=bad)
    seen = [
        (image, label)
        for images, labels, weights in evaluation(source, batch_size=7, shards=1, bad=bad)
        for image, label, weight in zip(images, labels, weights, strict=True)
        if weight
    ]
    assert bad.count == len(logged) == 1
    lost = int(logged[0].split()[1])
    left = [example for i, example in enumerate(examples) if i != lost]
    np.testing.assert_array_equal([image for image, _ in seen], stacked(left))
    assert [int(label) for _, label in seen] == [example["label"] for example in left]


def test_labels_of_records_are_read_without_their_images(write_set, logged):
    examples = colour_examples(601)
    data_dir = write_set("colour", FEATURES, {"train": examples}, file_format="array_record")
    source = load("colour", "train[3:]", data_dir, None, augment="imagenet")
    assert labels(source).tolist() == [example["label"] for example in examples[3:]]
    assert logged == ["reading the labels of the 598 records of colour train[3:]"]
    decoded = load("colour", "train[3:]", data_dir, None)
    assert labels(decoded).tolist() == labels(source).tolist()


def test_the_limit_of_open_files_is_raised_for_several_splits(write_set):
    """Runs in its own process, because ArrayRecord's reader crashes beyond the limit."""
    examples = {split: colour_examples(2) for split in "abcdefgh"}
    data_dir = write_set("colour", FEATURES, examples, file_format="array_record")
    program = (
        "import os, resource, sys\n"
        "from trainer.data.tfds import records\n"
        "from trainer.data.tfds.prepare import find_builder\n"
        "builder = find_builder('colour', sys.argv[1])\n"
        "first = records.tf.constant([0], 'int64')\n"
        "records.indexed(builder, 'a', (6, 4, 3), tuple('01234'), 'a', whole=False).fetch(first)\n"
        "records._SPARE_FILES = 0\n"
        "free = len(os.listdir('/proc/self/fd')) + 2\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (free, 4096))\n"
        "sets = [\n"
        "    records.indexed(builder, s, (6, 4, 3), tuple('01234'), s, whole=False)\n"
        "    for s in 'bcdefgh'\n"
        "]\n"
        "assert all(each.fetch(first)[0].numpy()[0] for each in sets)\n"
        "print('read', flush=True)\n"
        "os._exit(0)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, data_dir], capture_output=True, text=True, check=False
    )
    assert done.stdout == "read\n", done.stderr


def test_grayscale_stays_one_channel_and_other_features_are_ignored(write_set):
    examples = [{**e, "id": f"name {i}"} for i, e in enumerate(colour_examples(9, channels=1))]
    features = {
        "id": tfds.features.Text(),
        "image": tfds.features.Image(shape=(6, 4, 1)),
        "label": LABEL,
    }
    data_dir = write_set("gray", features, {"train": examples})
    np.testing.assert_array_equal(load("gray", "train", data_dir, None).images, stacked(examples))


def test_varying_shapes_need_image_size(write_set):
    examples = colour_examples(3, 6, 4) + colour_examples(2, 9, 12)
    features = {"image": tfds.features.Image(shape=(None, None, 3)), "label": LABEL}
    data_dir = write_set("varying", features, {"train": examples})
    with pytest.raises(UserError, match="varying's images differ in size: give --image_size"):
        load("varying", "train", data_dir, None)
    images = load("varying", "train", data_dir, 5).images
    assert images.shape == (5, 5, 5, 3)
    for image, example in zip(images, examples, strict=True):
        resized = tf.image.resize(example["image"], (5, 5), antialias=True).numpy()
        assert np.abs(image - resized).max() <= 0.5


def test_image_size_resizes_fixed_shapes_too(write_set):
    flat = [{"image": np.full((6, 4, 3), level, np.uint8), "label": 0} for level in (0, 77, 255)]
    images = load("flat", "train", write_set("flat", FEATURES, {"train": flat}), 8).images
    assert images.shape == (3, 8, 8, 3)
    np.testing.assert_array_equal(images[:, 3, 5, 1], [0, 77, 255])


def test_training_at_several_sizes_resizes_what_was_stored(write_set):
    """Images are never resized twice: a size's pixels do not depend on the other sizes."""
    examples = colour_examples(3, 6, 4) + colour_examples(2, 9, 12)
    features = {"image": tfds.features.Image(shape=(None, None, 3)), "label": LABEL}
    sets = {
        "varying": write_set("varying", features, {"train": examples}, file_format="array_record"),
        "colour": write_set("colour", FEATURES, {"train": colour_examples(5)}),
    }
    where = {"position": 0, "micro_batch_size": 5, "replicas": 1, "local_replicas": range(1)}
    for name, data_dir in sets.items():
        source = load(name, "train", data_dir, 9, several_sizes=True)
        assert isinstance(source, InMemoryDataset) == (name == "colour")
        for size in (5, 9):
            stored = load(name, "train", data_dir, size)
            found, wanted = (
                next(iter(training(ExampleStream(of, NONE, 0), **where, image_size=at)))
                for of, at in ((source, size), (stored, None))
            )
            np.testing.assert_array_equal(found[0], wanted[0])
            np.testing.assert_array_equal(found[1], wanted[1])


@pytest.mark.parametrize(
    "name, features, example, keys, message",
    [
        (
            "deep",
            {"image": tfds.features.Image(shape=(2, 2, 1), dtype=np.uint16), "label": LABEL},
            {"image": np.full((2, 2, 1), 1000, np.uint16), "label": 1},
            ("image", "label"),
            "(?s)deep's images are uint16 .*8-bit",
        ),
        (
            "captions",
            {"image": tfds.features.Image(shape=(2, 2, 1)), "text": tfds.features.Text()},
            {"image": np.zeros((2, 2, 1), np.uint8), "text": "a cat"},
            ("image", "text"),
            "captions is not an image-classification set",
        ),
        (
            "keyless",
            {"image": tfds.features.Image(shape=(2, 2, 1)), "label": LABEL},
            {"image": np.zeros((2, 2, 1), np.uint8), "label": 1},
            None,
            "keyless is not an image-classification set: .* none",
        ),
        (
            "unlabelled",
            {"image": tfds.features.Image(shape=(2, 2, 1)), "label": LABEL},
            {"image": np.zeros((2, 2, 1), np.uint8), "label": -1},
            ("image", "label"),
            "unlabelled train: 1 of 1 examples have no label",
        ),
    ],
)
def test_unsuitable_sets_are_refused(write_set, name, features, example, keys, message):
    data_dir = write_set(name, features, {"train": [example]}, keys)
    with pytest.raises(UserError, match=message):
        load(name, "train", data_dir, None)


def test_unknown_and_empty_splits_are_refused(write_set):
    data_dir = write_set("colour", FEATURES, {"train": colour_examples(20)})
    for split in ("test", "train[", "train[:0]", "train[:1%]"):
        with pytest.raises(UserError, match=r"(?s)split .* of colour .*one of train \(20\)"):
            load("colour", split, data_dir, None)


def records_file(data_dir: str) -> pathlib.Path:
    (path,) = pathlib.Path(data_dir).glob("colour/*/*.tfrecord*")
    return path


def test_damaged_and_short_files_are_refused(write_set):
    data_dir = write_set("colour", FEATURES, {"train": colour_examples(600)})
    path = records_file(data_dir)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"colour train is damaged in .* from number 256: delete"):
        load("colour", "train", data_dir, None)
    os.truncate(path, len(content) - 10)
    with pytest.raises(UserError, match="colour train is damaged"):
        load("colour", "train", data_dir, None)
    path.unlink()
    with pytest.raises(UserError, match="colour train is damaged"):
        load("colour", "train", data_dir, None)
    path.write_bytes(b"")
    with pytest.raises(UserError, match="colour train has 0 of its 600 records"):
        load("colour", "train", data_dir, None)


def test_fashion_mnist_has_its_known_content(fashion_mnist_test: InMemoryDataset):
    assert fashion_mnist_test.images.shape == (10_000, 28, 28, 1)
    assert fashion_mnist_test.classes == 10
    assert np.bincount(fashion_mnist_test.labels).tolist() == [1000] * 10
    assert fashion_mnist_test.images.sum(dtype=np.int64) == 573_469_082


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (5, 7, 3, 3), (40, 16, 16, 4)])
def test_pixel_statistics_equal_numpy(shape):
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    mean, std = pixel_statistics(images)
    axes = (0, 1, 2)
    np.testing.assert_allclose(mean, images.mean(axes, dtype=np.float64), rtol=1e-7)
    expected = np.maximum(images.std(axes, dtype=np.float64), 1)
    np.testing.assert_allclose(std, expected, rtol=1e-7)
    assert all(type(value) is float for value in mean + std)


def test_pixel_statistics_do_not_depend_on_the_pieces(monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (9, 5, 5, 3), dtype=np.uint8)
    whole = pixel_statistics(images)
    monkeypatch.setattr("trainer.data.in_memory._STATISTICS_AT_ONCE", 7)
    assert pixel_statistics(images) == whole


def test_a_constant_channel_has_a_std_of_1():
    images = np.full((3, 2, 2, 2), 200, np.uint8)
    images[..., 1] = np.arange(3)[:, None, None] * 100
    mean, std = pixel_statistics(images)
    assert mean == (200.0, 100.0)
    assert std == (1.0, pytest.approx(np.sqrt(20_000 / 3)))
