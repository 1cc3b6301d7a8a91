"""Encoded sets equal sets in memory; examples that cannot be decoded are named or replaced."""

import collections
import io
import itertools
import os

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from trainer.config import augment_list
from trainer.data.bad_examples import BadExamples
from trainer.data.chunk_decoding import threads
from trainer.data.in_memory import InMemoryDataset
from trainer.data.indexed import IndexedDataset
from trainer.data.mixing import Mixing, mix
from trainer.data.pipeline import ExampleStream, evaluation, training
from trainer.data.shuffle import example_indices
from trainer.data.sources import image_statistics, load
from trainer.errors import UserError
from trainer.nn.splitmix64 import further_bits, random_bits
from trainer.system.tensorflow_errors import translate

SEED = 11
SIZE = 6  # pixels


def file_of(kind: str, number: int) -> bytes:
    """A flat image, whose colour encodes its number."""
    pixels = np.full((SIZE + number % 5, SIZE + number % 3, 3), 3 * number, np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


@pytest.fixture
def folder(tmp_path):
    """folder(N, {number: replacement}) → a set of N images, half of them dark and half light.

    A replacement is a file's bytes, or "nothing" for a broken link.
    """

    def make(examples: int, bad: dict[int, bytes | str] | None = None, split: str = "train") -> str:
        for number in range(examples):
            path = tmp_path / split / f"{2 * number // examples}" / f"{number}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            match (bad or {}).get(number, file_of("PNG" if number % 2 else "JPEG", number)):
                case bytes() as content:
                    path.write_bytes(content)
                case "nothing":
                    path.symlink_to(tmp_path / "nowhere")
        return f"image_folder:{tmp_path}"

    return make


BAD = {
    3: file_of("JPEG", 3)[:-20],  # cut off
    10: b"",
    17: b"a text that somebody named .jpg\n",
    24: file_of("TIFF", 24),
    31: "nothing",
}
WHERE = {"micro_batch_size": 8, "replicas": 1, "local_replicas": range(1)}


def numbers(images: np.ndarray) -> list[int]:
    """The numbers that the images' colours encode."""
    return np.rint(images[:, SIZE // 2, SIZE // 2].mean(axis=-1) / 3).astype(int).tolist()


def take(
    source: InMemoryDataset | IndexedDataset, count: int, **options
) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of at least the first `count` examples, in whole micro-batches."""
    where = WHERE | {"position": 0} | options
    augment, seed = where.pop("augment", "none"), where.pop("seed", SEED)
    stream = ExampleStream(source, augment_list.parse(augment), seed, where.pop("bad", None))
    elements = training(stream, **where).as_numpy_iterator()
    batches = list(itertools.islice(elements, -(-count // where["micro_batch_size"])))
    return tuple(np.concatenate(part) for part in list(zip(*batches, strict=True))[:2])


@pytest.mark.parametrize("augment", ["none", "medium", "strong", "flip,randaugment,erasing"])
def test_a_set_on_disk_equals_the_set_in_memory(folder, augment):
    dataset = folder(50)
    memory = load(dataset, "train", None, SIZE)
    disk = load(dataset, "train", None, SIZE, bad=BadExamples(skip=True))
    assert (type(memory), type(disk)) == (InMemoryDataset, IndexedDataset)
    assert memory.examples == disk.examples == 50
    for position, b in ((0, 8), (3, 12), (10**12 + 1, 7), (5, 17)):
        where = {"position": position, "micro_batch_size": b, "augment": augment}
        for found, expected in zip(take(disk, 60, **where), take(memory, 60, **where), strict=True):
            np.testing.assert_array_equal(found, expected)
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


@pytest.mark.parametrize("augment", ["none", "imagenet,trivialaugment"])
def test_streamed_images_are_mixed_after_bad_ones_are_replaced(folder, augment):
    """Each has the mixture that `mix` makes of the same examples, whatever the micro-batch is."""
    disk = load(folder(50, BAD), "train", None, SIZE, bad=BadExamples(skip=True))
    options = {"position": 400, "augment": augment, "bad": BadExamples(skip=True)}
    images, labels = take(disk, 48, **options)
    how, first = Mixing(0.5, 1.0, 4), tf.constant(400, tf.int64)
    expected, names = mix(tf.constant(images), tf.constant(labels), first, how, SEED)
    for b in (4, 16):
        for found, wanted in zip(mixed(disk, augment, b), (expected, *names), strict=True):
            np.testing.assert_array_equal(found, wanted)
    assert (expected.numpy() != images).any()
    if "imagenet" not in augment:
        memory = load(folder(50), "train", None, SIZE)
        good = load(folder(50), "train", None, SIZE, bad=BadExamples(skip=True))
        for found, wanted in zip(mixed(good, augment, 16), mixed(memory, augment, 24), strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_crops_depend_only_on_positions(folder):
    source = load(folder(50), "train", None, SIZE, augment="imagenet")
    start = 10**10 + 3
    whole, labels = take(source, 48, position=start, micro_batch_size=48, augment="imagenet")
    np.testing.assert_array_equal(
        numbers(whole),
        [numbers_of(source)[i] for i in example_indices(range(start, start + 48), 50, SEED)],
    )
    for b in (1, 12, 16):
        again = take(source, 48, position=start, micro_batch_size=b, augment="imagenet")
        np.testing.assert_array_equal(again[0], whole)
        np.testing.assert_array_equal(again[1], labels)
    # The crops are the same if the pipeline starts in the middle, and on two hosts.
    resumed, _ = take(source, 24, position=start + 24, micro_batch_size=12, augment="imagenet")
    np.testing.assert_array_equal(resumed, whole[24:])
    hosts = [
        take(
            source,
            24,
            position=start,
            micro_batch_size=12,
            replicas=2,
            augment="imagenet",
            local_replicas=range(h, h + 1),
        )[0]
        for h in (0, 1)
    ]
    dealt = np.concatenate([hosts[h][12 * j : 12 * j + 12] for j in (0, 1) for h in (0, 1)])
    np.testing.assert_array_equal(dealt, whole)


def numbers_of(source: IndexedDataset) -> list[int]:
    return [
        int(source.describe(i).rpartition("/")[2].partition(".")[0]) for i in range(source.examples)
    ]


@pytest.mark.parametrize("number", BAD)
def test_the_first_bad_example_is_named(folder, number, tmp_path):
    dataset = folder(40, {number: BAD[number]})
    message = rf"(?s){tmp_path}/train/./{number}\.jpg cannot be used: .*or give --skip_bad_examples"
    with pytest.raises(UserError, match=message):
        load(dataset, "train", None, SIZE)
    source, bad = load(dataset, "train", None, SIZE, augment="imagenet"), BadExamples(skip=False)
    with pytest.raises(UserError, match=message), translate(bad.refusal):
        take(source, 40, augment="imagenet", bad=bad)
    with pytest.raises(UserError, match=message), translate(bad.refusal):
        list(evaluation(source, batch_size=7, shards=1, augment="imagenet", bad=bad))


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
@pytest.mark.parametrize("missing", [1, 8, 60])
def test_a_file_that_lacks_its_last_bytes_is_damaged(folder, kind, missing):
    """Pillow decodes a PNG without its last chunk, and TensorFlow does not."""
    dataset = folder(4, {3: file_of(kind, 3)[:-missing]})
    with pytest.raises(UserError, match=r"3\.jpg cannot be used: it is damaged"):
        load(dataset, "train", None, SIZE)


@pytest.mark.parametrize("augment", ["none", "imagenet"])
def test_bad_examples_are_replaced_counted_and_named(folder, augment, tmp_path, logged):
    """Good examples come at their positions in two passes, and others replace bad ones."""
    bad = BadExamples(skip=True, path=tmp_path / "bad.txt")
    source = load(folder(40, BAD), "train", None, SIZE, augment=augment, bad=bad)
    images, labels = take(source, 80, augment=augment, bad=bad)
    number_of = numbers_of(source)
    indices = example_indices(range(80), 40, SEED).numpy()
    for position, (found, label) in enumerate(zip(numbers(images), labels, strict=True)):
        number = number_of[indices[position]]
        words = further_bits(random_bits(tf.constant([position], tf.int64), SEED), 100)[0]
        others = iter(int(word) % 40 for word in words.numpy())
        while number in BAD:
            number = number_of[next(others)]
        assert (found, label) == (number, number >= 20), position
    assert bad.count == len(logged) == len(BAD)
    names = [line.split("\t")[0] for line in (tmp_path / "bad.txt").read_text().splitlines()]
    assert sorted(names) == sorted(f"{tmp_path}/train/{n // 20}/{n}.jpg" for n in BAD)
    # A second start has read them from the file.
    again = BadExamples(skip=True, path=tmp_path / "bad.txt")
    take(source, 80, augment=augment, bad=again)
    assert again.count == len(logged) == len(BAD)


def test_a_replacement_does_not_depend_on_known_bad_examples(folder):
    """A new start at each micro-batch gives the same examples as one run.

    About half of the crops of a file without its end can be decoded.
    """
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).save(file, "JPEG")
    cut_off = file.getvalue()[: len(file.getvalue()) * 9 // 10]
    dataset = folder(6, {0: cut_off, 1: cut_off, 2: cut_off, 3: b"", 4: b""})
    source = load(dataset, "train", None, SIZE, augment="imagenet", bad=BadExamples(skip=True))

    def images(position: int, count: int) -> np.ndarray:
        bad = BadExamples(skip=True)
        return take(source, count, position=position, augment="imagenet", bad=bad)[0]

    whole = images(0, 16)
    for position in (0, 8):
        np.testing.assert_array_equal(images(position, 8), whole[position : position + 8])


@pytest.mark.parametrize("batch_size, shards", [(7, 1), (16, 2), (40, 1)])
def test_evaluation_leaves_bad_examples_out(folder, batch_size, shards):
    bad = BadExamples(skip=True)
    source = load(folder(40, BAD), "train", None, SIZE, bad=bad)
    counted = collections.Counter()
    for images, labels, weights in evaluation(
        source, batch_size=batch_size, shards=shards, bad=bad
    ):
        good = weights.numpy() > 0
        seen = numbers(images.numpy()[good])
        counted.update(seen)
        assert labels.numpy()[good].tolist() == [number >= 20 for number in seen]
    assert counted == {number: 1 for number in range(40) if number not in BAD}
    assert bad.count == len(BAD)


def test_a_class_that_the_run_does_not_know_is_refused_or_skipped(folder, tmp_path):
    dataset = folder(20)
    folder(30, split="val")
    (tmp_path / "val" / "0").rename(tmp_path / "val" / "cats")
    message = (
        r"val has classes that the run does not know: cats\. It knows 0, 1\.\nRemove or rename"
    )
    with pytest.raises(UserError, match=message):
        load(dataset, "val", None, SIZE, class_names=("0", "1"))
    bad = BadExamples(skip=True)
    source = load(dataset, "val", None, SIZE, class_names=("0", "1"), bad=bad)
    batches = list(evaluation(source, batch_size=5, shards=1, bad=bad))
    assert sum(float(tf.reduce_sum(weights)) for _, _, weights in batches) == 15
    assert bad.count == 15


@pytest.mark.parametrize("largest", [2**30, 5000])
def test_statistics_on_disk_equal_those_in_memory(folder, monkeypatch, largest):
    """A large set is sampled, here every fourth example of 50."""
    monkeypatch.setattr("trainer.data.sources._STATISTICS_BYTES", largest)
    monkeypatch.setattr("trainer.data.sources._STATISTICS_EXAMPLES", 16)
    bad = BadExamples(skip=True)
    memory, disk = (load(folder(50), "train", None, SIZE, bad=b) for b in (None, bad))
    found = image_statistics(disk, "none", bad)
    assert found == image_statistics(memory, "none", bad)
    step = 1 if largest == 2**30 else 4
    pixels = memory.images[::step].reshape(-1, 3).astype(float)
    np.testing.assert_allclose(found, (pixels.mean(0), pixels.std(0)), rtol=1e-6)


def test_statistics_name_bad_files(folder, monkeypatch, logged):
    monkeypatch.setattr("trainer.data.sources._STATISTICS_BYTES", 5000)
    monkeypatch.setattr("trainer.data.sources._STATISTICS_EXAMPLES", 16)
    source = load(
        folder(50, dict.fromkeys(range(50), b"")), "train", None, SIZE, augment="imagenet"
    )
    bad = BadExamples(skip=True)
    with pytest.raises(UserError, match="none of"):
        image_statistics(source, "imagenet", bad)
    assert {line.split()[0] for line in logged} <= {source.describe(i) for i in range(0, 50, 4)}


def test_bad_examples_of_any_name_are_counted_once(tmp_path):
    """Names hold a tab, a newline, and Latin-1 in file and folder; the run starts twice."""
    names = [b"a/x\ty.jpg", b"a/x\nz.jpg", b"caf\xe9/\xe9.jpg"]
    for name in [*names, b"a/good.jpg"]:
        path = os.path.join(os.fsencode(tmp_path), b"train", name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(b"" if name in names else file_of("JPEG", 1))
    for _ in range(2):
        bad = BadExamples(skip=True, path=tmp_path / "bad.txt")
        source = load(f"image_folder:{tmp_path}", "train", None, SIZE, bad=bad)
        batches = evaluation(source, batch_size=4, shards=1, bad=bad)
        assert sum(float(tf.reduce_sum(weights)) for _, _, weights in batches) == 1
        assert bad.count == 3
    assert len((tmp_path / "bad.txt").read_text().splitlines()) == 3


def test_a_set_of_bad_examples_is_an_error(folder):
    bad = BadExamples(skip=True)
    source = load(folder(4, dict.fromkeys(range(4), b"")), "train", None, SIZE, bad=bad)
    with pytest.raises(UserError, match="101 examples in a row"), translate(bad.refusal):
        take(source, 8, bad=bad)
    with pytest.raises(UserError, match="none of 4 examples can be used"):
        image_statistics(source, "none", BadExamples(skip=True))


def test_threads_follow_the_tasks_cores(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 128)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {4, 5, 6, 7})
    assert threads() == 16


def test_starts_anywhere_at_once(folder):
    source = load(folder(50), "train", None, SIZE, augment="imagenet")
    (_, labels) = take(source, 8, position=10**15, augment="imagenet")
    indices = example_indices(range(10**15, 10**15 + 8), 50, SEED)
    np.testing.assert_array_equal(labels, [numbers_of(source)[i] >= 25 for i in indices])


def test_tensorflow_prints_no_error(folder, capfd):
    """Images of a multiple of 64 bytes caused an error message for each chunk."""
    source = load(folder(32), "train", None, 32)
    batches = evaluation(source, batch_size=8, shards=1)
    assert len(list(batches)) == 4
    assert capfd.readouterr().err == ""
