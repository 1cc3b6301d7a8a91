"""Datasets in buckets: the same examples as on the disk, by any way of reading them."""

import functools
import gc
import http.client
import os
import pathlib
import re
import shutil

import numpy as np
import pytest

from tests.support.bucket_data import upload, write_records
from tests.support.bucket_servers import BUCKET
from tests.support.photographs import write_photographs
from trainer.buckets import client
from trainer.config import augment_list
from trainer.data import sources, split_overlap
from trainer.data.bad_examples import BadExamples
from trainer.data.bucket import listed_objects, open_folders
from trainer.data.bucket.placeholders import is_placeholder
from trainer.data.pipeline import ExampleStream, training
from trainer.errors import TryAgainError, UserError
from trainer.system.tensorflow_errors import translate

GOOGLE = pytest.mark.parametrize("bucket_server", ["gs"], indirect=True)
S3 = pytest.mark.parametrize("bucket_server", ["s3"], indirect=True)
COUNTS = {"train": 200, "test": 30}


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """The data on the disk: records in five files, the same in TFRecord, and photographs."""
    root = tmp_path_factory.mktemp("sets")
    write_records(root / "records", COUNTS, shards=5, size=(8, 8))
    write_records(root / "tfrecords", COUNTS, shards=5, size=(8, 8), file_format="tfrecord")
    write_photographs(root / "photographs", {"train": 60, "val": 10})
    return root


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """machine(name) begins a process on a machine whose cache has this name."""
    processes = []

    def begin(name="cache"):
        processes.append(open_folders._Opened())
        monkeypatch.setattr(open_folders, "_OPENED", processes[-1])
        open_folders.keep_in(str(tmp_path / name))
        return tmp_path / name

    begin()
    yield begin
    gc.collect()  # Of iterators whose reading failed.
    for folder in [each for process in processes for each in process.folders.values()]:
        folder._threads.shutdown(cancel_futures=True)  # Else it reports errors in another test.


def read(dataset, split, data_dir, augment, bad=None):
    """The images, labels and positions of two epochs, in the order of training."""
    bad = bad or BadExamples(skip=False)
    source = sources.load(dataset, split, data_dir, 8, augment=augment, bad=bad)
    stream = ExampleStream(source, augment_list.parse(augment), seed=3, bad=bad)
    batches = training(stream, position=0, micro_batch_size=20, replicas=1, local_replicas=range(1))
    found = list(batches.take(2 * source.examples // 20).as_numpy_iterator())
    return [np.concatenate(each) for each in list(zip(*found, strict=True))[:2]]


@pytest.fixture(scope="module")
def on_disk(sets):
    """on_disk(kind, augment, split) → what `read` returns for a set on the disk."""

    @functools.cache
    def expected(kind, augment, split="train"):
        if kind == "photographs":
            return read(f"image_folder:{sets / kind}", split, None, augment)
        return read("colour", split, str(sets / kind), augment)

    return expected


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one, other)


def whole_shard(request):
    return "-of-" in request.path and request.method == "GET" and not request.part


STREAMED = "imagenet"  # Examples stay encoded, and are read by index.


@pytest.mark.parametrize(
    ("bucket_server", "augment"), [("gs", "flip"), ("s3", STREAMED)], indirect=["bucket_server"]
)
def test_records_equal_those_on_the_disk(place, sets, on_disk, machine, augment, logged):
    upload(place, sets / "records")
    expected = on_disk("records", augment)
    assert_same(read("colour", "train", place.url, augment), expected)
    assert f"listing {place.url}/colour" in logged
    fetching = f" of colour train, 655.4 kB, from {place.url}/colour to "
    assert any(fetching in each for each in logged)


def test_records_are_read_in_parts_until_their_files_arrive(
    place, sets, on_disk, machine, logged, monkeypatch
):
    upload(place, sets / "records")
    expected = on_disk("records", STREAMED)
    # The fetching of whole files fails, and is soon given up.
    monkeypatch.setattr(listed_objects, "_PATIENCE", 6.0)
    monkeypatch.setitem(client._RETRIES, "max_retries", 0)
    place.proxy.rule = lambda request: 503 if whole_shard(request) else None
    assert_same(read("colour", "train", place.url, STREAMED), expected)
    parts = [request for request in place.proxy.requests if request.part]
    assert len(parts) >= 200
    # Two of the five files arrive, and are read from the disk.
    cache = machine("half")
    rule = re.compile(r".*-train.*-0000[01]-of-.*")
    place.proxy.rule = lambda request: (
        503 if whole_shard(request) and not rule.match(request.path) else None
    )
    folder = open_folders.of(f"{open_folders.local_data_dir(place.url, 'colour')}/colour/x")
    early = [path for path in cache.rglob("*-train*-of-*") if rule.match(str(path))]
    folder.bring(map(str, early))
    assert_same(read("colour", "train", place.url, STREAMED), expected)
    here = [not is_placeholder(str(path)) for path in sorted(cache.rglob("*-train*-of-*"))]
    assert here == [True, True, False, False, False]


@GOOGLE
def test_tfrecords_are_fetched_whole(place, sets, on_disk, machine, logged):
    upload(place, sets / "tfrecords")
    expected = on_disk("tfrecords", "flip")
    assert_same(read("colour", "train", place.url, "flip"), expected)
    before = len(place.proxy.requests)
    machine()  # A second process on this machine.
    assert_same(read("colour", "train", place.url, "flip"), expected)
    shards = [each for each in place.proxy.requests[before:] if "-of-" in each.path]
    assert not shards


@pytest.mark.parametrize(
    ("bucket_server", "augment"), [("s3", "flip"), ("gs", STREAMED)], indirect=["bucket_server"]
)
def test_photographs_equal_those_on_the_disk(place, sets, on_disk, machine, augment, logged):
    upload(place, sets / "photographs")
    for split in ("train[:50%]", "train[50%:]+val"):
        expected = on_disk("photographs", augment, split)
        assert_same(read(f"image_folder:{place.url}", split, None, augment), expected)


@S3
def test_a_file_that_was_deleted_is_named(place, sets, machine, logged):
    upload(place, sets / "photographs")
    sources.load(f"image_folder:{place.url}", "train", None, 8, augment=STREAMED)
    machine("other")
    dataset = f"image_folder:{place.url}"
    open_folders.local_images(place.url)
    place.connect().delete("train/0/0.jpg")
    with pytest.raises(UserError, match=r"train/0/0.jpg cannot be used: .* No such file"):
        with_errors(lambda bad: read(dataset, "train", None, STREAMED, bad))


def with_errors(call):
    """Calls `call` with bad examples, and raises their error in place of TensorFlow's."""
    bad = BadExamples(skip=False)
    with translate(bad.refusal):
        call(bad)


def test_a_bucket_that_goes_away_ends_the_reading_with_its_own_error(
    place, sets, machine, logged, monkeypatch
):
    monkeypatch.setitem(client._RETRIES, "max_retries", 0)
    monkeypatch.setattr(listed_objects, "_PATIENCE", 0.2)
    upload(place, sets / "records")
    open_folders.local_data_dir(place.url, "colour")
    place.proxy.rule = lambda request: "drop"
    with pytest.raises(TryAgainError, match="cannot be reached"):
        with_errors(lambda bad: read("colour", "train", place.url, STREAMED, bad))


@GOOGLE
def test_a_damaged_local_file_is_read_from_the_bucket(place, sets, on_disk, machine, logged):
    upload(place, sets / "records")
    expected = on_disk("records", STREAMED)
    cache = machine()
    sources.load("colour", "train", place.url, 8)  # Into memory: fetches all files.
    for path in cache.rglob("*-train*-of-*"):
        times = path.stat()
        content = bytearray(path.read_bytes())
        content[3000:3600] = b"\0" * 600
        path.write_bytes(content)
        os.utime(path, (times.st_mtime, times.st_mtime))
    machine()
    assert_same(read("colour", "train", place.url, STREAMED), expected)
    assert any("is damaged; what cannot be read in it is read from" in each for each in logged)


@GOOGLE
def test_a_set_without_an_index_is_converted_on_a_local_disk(place, sets):
    """The command convert refuses a bucket."""
    upload(place, sets / "tfrecords")
    with pytest.raises(UserError, match=r"Copy it to a local folder, .*\n.*--data_dir=FOLDER"):
        sources.load("colour", "train", place.url, 8, augment=STREAMED)


@S3
def test_pictures_that_the_disk_damaged_are_fetched_again(place, sets, on_disk, machine, logged):
    upload(place, sets / "photographs")
    dataset = f"image_folder:{place.url}"
    expected = on_disk("photographs", STREAMED)
    folder = open_folders.of(f"{open_folders.local_images(place.url)}/x")
    damaged = [str(folder.path / f"train/{n % 2}/{n}.jpg") for n in (3, 10)]
    folder.bring(damaged)
    for path in damaged:
        times, size = os.stat(path), os.path.getsize(path)
        with open(path, "wb") as file:
            file.write(bytes(size))
        os.utime(path, ns=(times.st_mtime_ns, times.st_mtime_ns))
    machine()
    bad = BadExamples(skip=True)
    assert_same(read(dataset, "train", None, STREAMED, bad), expected)
    assert bad.count == 0
    assert sum("was damaged, and is fetched again from" in each for each in logged) == 2


@GOOGLE
def test_processes_with_other_listings_do_not_disturb_each_other(place, sets, machine, logged):
    """A file that the first one fetches late must not become the new content of the second."""
    upload(place, sets / "photographs")
    first = open_folders.of(f"{open_folders.local_images(place.url)}/x")
    early, late = (str(first.path / f"train/0/{n}.jpg") for n in (0, 2))
    first.bring([early])
    for name in ("train/0/0.jpg", "train/0/2.jpg", "train/1/1.jpg"):
        place.connect().delete(name)
    place.connect().create("train/0/0.jpg", b"new content")
    machine()
    second = open_folders.of(f"{open_folders.local_images(place.url)}/x")
    assert second.path != first.path
    path = str(second.path / "train/0/0.jpg")
    second.bring([path])
    assert pathlib.Path(path).read_bytes() == b"new content"
    assert not (second.path / "train/1/1.jpg").exists()
    # The first process has what it fetched, and hears that the rest is gone.
    assert pathlib.Path(early).read_bytes() == (sets / "photographs/train/0/0.jpg").read_bytes()
    first.bring([late])
    assert not os.path.exists(late)
    assert not (second.path / "train/0/2.jpg").exists()


@GOOGLE
def test_a_later_listing_shares_what_was_fetched(place, sets, machine, logged):
    upload(place, sets / "photographs")
    sources.load(f"image_folder:{place.url}", "train", None, 8)  # Into memory.
    place.connect().create("train/0/new.jpg", b"another")
    before = len(place.proxy.requests)
    cache = machine()
    folder = open_folders.of(f"{open_folders.local_images(place.url)}/x")
    folder.bring([str(path) for path in folder.path.glob("train/*/*.jpg")])
    fetched = [each.path for each in place.proxy.requests[before:] if ".jpg" in each.path]
    assert [path.rpartition("/")[2] for path in fetched] == ["new.jpg"]
    assert len(list((cache / "data").iterdir())) == 2  # This process holds both.


@S3
def test_a_class_without_pictures_is_an_error_as_on_a_disk(place, sets, machine, logged):
    upload(place, sets / "photographs")
    connection = http.client.HTTPConnection("127.0.0.1", place.proxy.port)
    for key in ("train/", "train/2/"):  # As a console makes folders.
        connection.request("PUT", f"/{BUCKET}/{place.folder}/{key}", b"")
        assert connection.getresponse().read() is not None
    with pytest.raises(UserError, match=f"(?s){place.url}/train/2 has no .jpg.*file"):
        sources.load(f"image_folder:{place.url}", "train", None, 8)
    assert logged == [f"listing {place.url}"]


def test_what_is_not_in_the_bucket_is_named(place, sets, machine):
    with pytest.raises(UserError, match=f"{place.url} holds no files: correct --dataset"):
        sources.load(f"image_folder:{place.url}", "train", None, 8)
    with pytest.raises(UserError, match="--dataset=colour: TFDS has no such dataset"):
        sources.load("colour", "train", place.url, 8)
    with pytest.raises(UserError, match=f"fashion_mnist is not prepared in {place.url}: prepare"):
        sources.load("fashion_mnist", "train", place.url, 8)


@S3
def test_equal_pictures_of_two_splits_have_urls(place, machine, tmp_path):
    root = tmp_path / "photographs"
    write_photographs(root, {"train": 6, "val": 4})
    shutil.copy(root / "train/0/2.jpg", root / "val/0/9.jpg")
    upload(place, root)
    dataset = f"image_folder:{place.url}"
    found = {s: sources.load(dataset, s, None, 8, augment=STREAMED) for s in ("train", "val")}
    (warning,) = split_overlap.warnings(dataset, None, *found.items())
    names = f"{place.url}/val/0/9.jpg (in train: {place.url}/train/0/2.jpg)"
    assert warning.endswith(f"1 of the 5 pictures of val are in train too, such as {names}")
