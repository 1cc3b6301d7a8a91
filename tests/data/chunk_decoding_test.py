"""Encoded sets equal sets in memory, at any position and in any layout."""

import itertools

import numpy as np
import pytest
import tensorflow as tf

from tests.support.encoded_folders import (
    BAD,
    SEED,
    SIZE,
    WHERE,
    numbers,
    numbers_of,
    take,
    write_folder,
)
from tests.support.encoded_images import encoded
from trainer.config import augment_list
from trainer.data.bad_examples import BadExamples
from trainer.data.chunk_decoding import threads
from trainer.data.in_memory import InMemoryDataset
from trainer.data.indexed import IndexedDataset
from trainer.data.mixing import Mixing, mix
from trainer.data.pipeline import ExampleStream, evaluation, training
from trainer.data.shuffle import example_indices
from trainer.data.sources import image_statistics, load


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """The same 50 examples in memory and on the disk."""
    dataset = write_folder(tmp_path_factory.mktemp("pair"), 50)
    memory = load(dataset, "train", None, SIZE)
    disk = load(dataset, "train", None, SIZE, bad=BadExamples(skip=True))
    assert (type(memory), type(disk)) == (InMemoryDataset, IndexedDataset)
    assert memory.examples == disk.examples == 50
    return memory, disk


# Each position and size of the micro-batch, both with little augmentation and with much.
@pytest.mark.parametrize(
    ("augment", "places"),
    [
        ("none", ((0, 8), (10**12 + 1, 7))),
        ("medium", ((3, 12), (5, 17))),
        ("strong", ((0, 8), (10**12 + 1, 7))),
        ("flip,randaugment,erasing", ((3, 12), (5, 17))),
    ],
)
def test_a_set_on_disk_equals_the_set_in_memory(pair, augment, places):
    memory, disk = pair
    for position, b in places:
        where = {"position": position, "micro_batch_size": b, "augment": augment}
        for found, expected in zip(take(disk, 60, **where), take(memory, 60, **where), strict=True):
            np.testing.assert_array_equal(found, expected)


def test_an_evaluation_from_disk_equals_that_from_memory(pair):
    memory, disk = pair
    shares = ((8, 1, range(1)), (7, 3, range(3)), (64, 2, range(2)), (8, 4, range(2, 4)))
    for batch_size, shards, local in shares:
        pairs = (
            evaluation(source, batch_size=batch_size, shards=shards, local_shards=local)
            for source in (disk, memory)
        )
        for found, expected in zip(*pairs, strict=True):
            for a, b in zip(found, expected, strict=True):
                assert a.shape == b.shape
            np.testing.assert_array_equal(found[2], expected[2])
            np.testing.assert_array_equal(found[1][found[2] > 0], expected[1][expected[2] > 0])
            np.testing.assert_array_equal(found[0][found[2] > 0], expected[0][expected[2] > 0])


def mixed(source, augment, b):
    """Images, labels, partners and shares of 48 mixed examples, in ghost batches of 4."""
    stream = ExampleStream(
        *(source, augment_list.parse(augment), SEED, BadExamples(skip=True)),
        mixing=Mixing(0.5, 1.0, 4),
    )
    where = WHERE | {"position": 400, "micro_batch_size": b}
    batches = itertools.islice(training(stream, **where).as_numpy_iterator(), 48 // b)
    parts = zip(*((images, *names) for images, names, _ in batches), strict=True)
    return [np.concatenate(part) for part in parts]


@pytest.mark.parametrize(("augment", "b"), [("none", 4), ("imagenet,trivialaugment", 16)])
def test_streamed_images_are_mixed_after_bad_ones_are_replaced(folder, pair, augment, b):
    """Each has the mixture that `mix` makes of the same examples, whatever the micro-batch is."""
    disk = load(folder(50, BAD), "train", None, SIZE, bad=BadExamples(skip=True))
    options = {"position": 400, "augment": augment, "bad": BadExamples(skip=True)}
    images, labels = take(disk, 48, **options)
    how, first = Mixing(0.5, 1.0, 4), tf.constant(400, tf.int64)
    expected, names = mix(tf.constant(images), tf.constant(labels), first, how, SEED)
    for found, wanted in zip(mixed(disk, augment, b), (expected, *names), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert (expected.numpy() != images).any()
    if "imagenet" not in augment:
        memory, good = pair
        for found, wanted in zip(mixed(good, augment, 16), mixed(memory, augment, 24), strict=True):
            np.testing.assert_array_equal(found, wanted)


def shaded(number):
    """A PNG file whose red is its number, and whose other colours tell where a crop was."""
    across, down = np.meshgrid(np.arange(30) * 8, np.arange(20) * 12)
    pixels = np.stack([np.full_like(across, 3 * number), across, down], axis=-1)
    return encoded(pixels.astype(np.uint8), "PNG")


def test_crops_depend_only_on_positions_and_start_anywhere_at_once(folder):
    pictures = {number: shaded(number) for number in range(50)}
    source = load(folder(50, pictures), "train", None, SIZE, augment="imagenet")
    start = 10**15 + 3
    whole, labels = take(source, 48, position=start, micro_batch_size=48, augment="imagenet")
    indices = example_indices(range(start, start + 48), 50, SEED)
    expected = [numbers_of(source)[i] for i in indices]
    np.testing.assert_array_equal(numbers(whole[..., :1]), expected)
    assert len({image[..., 1:].tobytes() for image in whole}) == 48
    np.testing.assert_array_equal(labels, [number >= 25 for number in expected])
    again = take(source, 48, position=start, micro_batch_size=1, augment="imagenet")
    np.testing.assert_array_equal(again[0], whole)
    np.testing.assert_array_equal(again[1], labels)
    # The crops are the same if the pipeline starts in the middle, and on two hosts.
    resumed = take(source, 32, position=start + 16, micro_batch_size=16, augment="imagenet")
    np.testing.assert_array_equal(resumed[0], whole[16:])
    np.testing.assert_array_equal(resumed[1], labels[16:])
    hosts = [
        take(
            source,
            24,
            position=start,
            micro_batch_size=12,
            replicas=2,
            augment="imagenet",
            local_replicas=range(h, h + 1),
        )
        for h in (0, 1)
    ]
    for part, expected in enumerate((whole, labels)):
        dealt = [hosts[h][part][12 * j : 12 * j + 12] for j in (0, 1) for h in (0, 1)]
        np.testing.assert_array_equal(np.concatenate(dealt), expected)


@pytest.mark.parametrize("largest", [2**30, 5000])
def test_statistics_on_disk_equal_those_in_memory(pair, monkeypatch, largest):
    """A large set is sampled, here every fourth example of 50."""
    monkeypatch.setattr("trainer.data.sources._STATISTICS_BYTES", largest)
    monkeypatch.setattr("trainer.data.sources._STATISTICS_EXAMPLES", 16)
    memory, disk = pair
    bad = BadExamples(skip=True)
    found = image_statistics(disk, "none", bad)
    assert found == image_statistics(memory, "none", bad)
    step = 1 if largest == 2**30 else 4
    pixels = memory.images[::step].reshape(-1, 3).astype(float)
    np.testing.assert_allclose(found, (pixels.mean(0), pixels.std(0)), rtol=1e-6)


def test_threads_follow_the_tasks_cores(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 128)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {4, 5, 6, 7})
    assert threads() == 16


def test_tensorflow_prints_no_error(folder, capfd):
    """Images of a multiple of 64 bytes caused an error message for each chunk."""
    source = load(folder(32), "train", None, 32)
    batches = evaluation(source, batch_size=8, shards=1)
    assert len(list(batches)) == 4
    assert capfd.readouterr().err == ""
