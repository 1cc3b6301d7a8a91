"""Examples that cannot be decoded are named, counted, and replaced or left out."""

import collections
import gc
import os
import weakref

import numpy as np
import pytest
import tensorflow as tf

from tests.support.encoded_folders import BAD, SEED, SIZE, file_of, numbers, numbers_of, take
from tests.support.encoded_images import encoded
from trainer.data.bad_examples import BadExamples
from trainer.data.pipeline import evaluation
from trainer.data.shuffle import example_indices
from trainer.data.sources import image_statistics, load
from trainer.errors import UserError
from trainer.nn.splitmix64 import further_bits, random_bits
from trainer.system.tensorflow_errors import translate


@pytest.fixture
def one_core(monkeypatch):
    """Lets a pipeline decode ahead only what it does on one core: each bad example takes 5 ms."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})


# Building a pipeline takes a second, so each kind of bad example has one of the two.
@pytest.mark.parametrize(("number", "trains"), [(n, k % 2 == 0) for k, n in enumerate(BAD)])
def test_the_first_bad_example_is_named(folder, number, trains, tmp_path):
    dataset = folder(40, {number: BAD[number]})
    message = rf"(?s){tmp_path}/train/./{number}\.jpg cannot be used: .*or give --skip_bad_examples"
    with pytest.raises(UserError, match=message):
        load(dataset, "train", None, SIZE)
    source, bad = load(dataset, "train", None, SIZE, augment="imagenet"), BadExamples(skip=False)

    def read():
        if trains:
            take(source, 40, augment="imagenet", bad=bad)
        else:
            list(evaluation(source, batch_size=7, shards=1, augment="imagenet", bad=bad))

    with pytest.raises(UserError, match=message), translate(bad.refusal):
        read()


def test_the_iterator_of_a_reading_that_failed_is_freed(folder):
    """Otherwise, its threads would read the rest of the examples, for example from a bucket."""
    source = load(folder(40, {5: b""}), "train", None, SIZE, augment="imagenet")
    bad = BadExamples(skip=False)

    def failed():
        iterator = iter(evaluation(source, batch_size=7, shards=1, augment="imagenet", bad=bad))
        with pytest.raises(UserError), translate(bad.refusal):
            for _ in iterator:
                pass
        return weakref.ref(iterator)

    iterator = failed()
    gc.collect()
    assert bad.refused
    assert iterator() is None


def test_a_file_that_lacks_its_last_bytes_is_damaged(folder, logged):
    """Pillow decodes a PNG without its last chunk, and TensorFlow does not."""
    cuts = [(kind, missing) for kind in ("JPEG", "PNG") for missing in (1, 8, 60)]
    cut = {n: file_of(kind, n)[:-missing] for n, (kind, missing) in enumerate(cuts)}
    bad = BadExamples(skip=True)
    source = load(folder(8, cut), "train", None, SIZE, bad=bad)
    list(evaluation(source, batch_size=8, shards=1, bad=bad))
    found = {line.partition(" is left out: it is damaged")[0] for line in logged}
    assert len(logged) == len(cut)
    assert found == {source.describe(i) for i, n in enumerate(numbers_of(source)) if n in cut}


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
    left_out = [line for line in logged if " is left out" in line]  # not what other threads say
    assert bad.count == len(left_out) == len(BAD)
    names = [line.split("\t")[0] for line in (tmp_path / "bad.txt").read_text().splitlines()]
    assert sorted(names) == sorted(f"{tmp_path}/train/{n // 20}/{n}.jpg" for n in BAD)
    # A second start has read them from the file.
    again = BadExamples(skip=True, path=tmp_path / "bad.txt")
    take(source, 80, augment=augment, bad=again)
    assert again.count == len(BAD)
    assert left_out == [line for line in logged if " is left out" in line]


def test_a_replacement_does_not_depend_on_known_bad_examples(folder, one_core):
    """A new start at a micro-batch gives the same examples as one run.

    About half of the crops of a file without its end can be decoded.
    """
    noise = np.random.default_rng(0).integers(0, 256, (2, 200, 200, 3), np.uint8)
    files = [encoded(each, "JPEG") for each in noise]
    cut_off = [file[: len(file) * 9 // 10] for file in files]
    dataset = folder(6, dict(enumerate([*cut_off, b"", b"", b""])))
    source = load(dataset, "train", None, SIZE, augment="imagenet", bad=BadExamples(skip=True))

    def images(position: int, count: int) -> np.ndarray:
        bad = BadExamples(skip=True)
        where = {"position": position, "micro_batch_size": 4, "augment": "imagenet"}
        return take(source, count, bad=bad, **where)[0]

    whole = images(8, 16)
    assert whole[20 - 8].std() > 10  # A crop of a cut file replaces an empty one.
    np.testing.assert_array_equal(images(20, 4), whole[20 - 8 :])


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


def test_a_set_of_bad_examples_is_an_error(folder, one_core):
    """Each of the first positions that are decoded ahead is replaced 101 times."""
    bad = BadExamples(skip=True)
    source = load(folder(4, dict.fromkeys(range(4), b"")), "train", None, SIZE, bad=bad)
    with pytest.raises(UserError, match="101 examples in a row"), translate(bad.refusal):
        take(source, 1, micro_batch_size=1, bad=bad)
    with pytest.raises(UserError, match="none of 4 examples can be used"):
        image_statistics(source, "none", BadExamples(skip=True))
