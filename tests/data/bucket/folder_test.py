"""Folders of data in buckets: files and parts of files, and a bucket that fails."""

import errno
import hashlib
import pathlib
import shutil
import threading
import time

import pytest

from tests.support.bucket_data import upload
from trainer.buckets.objects import MissingError
from trainer.data.bucket import disk_space, listed_objects, open_folders
from trainer.data.bucket import folder as bucket_folder
from trainer.data.bucket.folder import BucketFolder
from trainer.data.bucket.listed_objects import ListedObjects
from trainer.data.bucket.placeholders import fill, is_placeholder
from trainer.errors import NotSavedError, TryAgainError, UserError

FILES = {f"train/{n % 3}/{n:03}.jpg": bytes([n]) * (100 + n) for n in range(40)}
BIG = "shard-00000-of-00001"


@pytest.fixture
def content(place, tmp_path):
    """The files in the bucket, by path."""
    found = {**FILES, BIG: bytes(range(256)) * 8000}
    for name, each in found.items():
        path = tmp_path / "source" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(each)
    upload(place, tmp_path / "source")
    return found


@pytest.fixture
def folder(place, content, tmp_path):
    return opened_folder(place, tmp_path / "cache")


def opened_folder(place, cache):
    objects = place.connect()
    path, parts = cache / "folder", cache / "parts"
    disk_space.hold(cache)
    path.mkdir(exist_ok=True)
    parts.mkdir(exist_ok=True)
    listing = dict(objects.stats())
    fill(path, parts, listing, [])
    return BucketFolder(ListedObjects(open_folders.parse(place.url), objects, listing), path, parts)


def paths(folder, names=FILES):
    return [str(folder.path / name) for name in names]


def test_files_are_brought_once_and_known_by_a_later_listing(place, folder, content, tmp_path):
    before = len(place.proxy.requests)
    folder.bring(paths(folder))
    assert len(place.proxy.requests) - before == len(FILES)
    folder.bring(paths(folder))
    assert {name: (folder.path / name).read_bytes() for name in FILES} == FILES
    assert not any((tmp_path / "cache/parts").iterdir())
    again = opened_folder(place, tmp_path / "cache")
    before = len(place.proxy.requests)
    again.bring(paths(again, content))
    assert len(place.proxy.requests) - before == 1  # The shard.
    assert (again.path / BIG).read_bytes() == content[BIG]


def test_all_files_of_a_run_are_fetched_ahead(folder, logged):
    folder.need(paths(folder), "train")
    wait_for(lambda: not any(map(is_placeholder, paths(folder))))
    wait_for(lambda: len(logged) == 2)
    assert logged[0].startswith(f"fetching 40 files of train, 4.8 kB, from {folder.url} to ")
    assert logged[1].startswith("fetched all files of train in ")
    folder.need(paths(folder), "train")
    assert len(logged) == 2


def wait_for(condition):
    for _ in range(500):
        if condition():
            return
        time.sleep(0.02)
    pytest.fail("it did not happen")


def test_parts_of_a_file_are_read_without_the_file(folder, content):
    path = str(folder.path / BIG)
    for start, stop in ((0, 10), (12_345, 67_890), (2_047_990, 2_048_000)):
        assert folder.read(path, start, stop) == content[BIG][start:stop]
    assert is_placeholder(path)


@pytest.mark.parametrize("verdict", [429, 403, "drop"])
def test_a_bucket_that_fails_for_a_while_is_told_once_and_awaited(
    place, folder, logged, monkeypatch, verdict
):
    monkeypatch.setattr(listed_objects, "_PATIENCE", 2.0)
    quick(monkeypatch)
    place.proxy.rule = lambda request: verdict
    timer = threading.Timer(1.0, lambda: setattr(place.proxy, "rule", lambda request: None))
    timer.start()
    folder.bring(paths(folder))
    assert (folder.path / "train/0/000.jpg").read_bytes() == FILES["train/0/000.jpg"]
    assert len(logged) == 1
    assert f"{folder.url} cannot be reached: " in logged[0]
    assert folder.source.failure is None


def quick(monkeypatch):
    """The client gives up after its first request; the folder repeats it."""
    from trainer.buckets import client

    monkeypatch.setitem(client._RETRIES, "max_retries", 0)


def test_a_bucket_that_stays_away_ends_the_run(place, content, logged, monkeypatch, tmp_path):
    quick(monkeypatch)
    folder = opened_folder(place, tmp_path / "cache")
    monkeypatch.setattr(listed_objects, "_PATIENCE", 0.3)
    place.proxy.rule = lambda request: "drop"
    with pytest.raises(TryAgainError, match=f"{folder.url} cannot be reached"):
        folder.bring(paths(folder)[:1])
    assert isinstance(folder.source.failure, TryAgainError)
    place.proxy.rule = lambda request: 403
    with pytest.raises(UserError, match="cannot be used: 403 Forbidden"):
        folder.read(str(folder.path / BIG), 0, 10)


def test_an_object_that_was_deleted_is_a_missing_file(place, folder):
    place.connect().delete("train/0/000.jpg")
    folder.bring(paths(folder))
    assert not (folder.path / "train/0/000.jpg").exists()
    assert (folder.path / "train/1/001.jpg").read_bytes() == FILES["train/1/001.jpg"]
    place.connect().delete(BIG)
    with pytest.raises(MissingError):
        folder.read(str(folder.path / BIG), 0, 10)
    assert folder.source.failure is None


def test_an_object_that_changes_during_a_run_is_refused(place, folder, tmp_path):
    for name in ("train/0/000.jpg", BIG):
        place.connect().delete(name)
    changed = {"train/0/000.jpg": b"another picture", BIG: b"another shard"}
    for name, each in changed.items():
        path = tmp_path / "other" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(each)
    upload(place, tmp_path / "other")
    with pytest.raises(UserError, match="has changed since this process listed it"):
        folder.bring(paths(folder)[:1])
    with pytest.raises(UserError, match=f"{BIG} has changed"):
        folder.read(str(folder.path / BIG), 0, 10)
    assert is_placeholder(paths(folder)[0])


def test_a_set_larger_than_the_disk_is_refused_with_its_size(folder, content, monkeypatch):
    free = shutil.disk_usage(folder.path)._replace(free=1_500_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    with pytest.raises(
        UserError, match=r"(?s)the files of this run take 2\.1 MB more .* has 1\.5 MB free"
    ):
        folder.need(paths(folder, content), "train")


def test_a_full_disk_is_named_and_leaves_no_half_file(folder, monkeypatch, tmp_path):
    def full(source, target):
        raise OSError(errno.ENOSPC, "No space left on device", str(target))

    monkeypatch.setattr(bucket_folder.os, "replace", full)
    with pytest.raises(NotSavedError, match="cannot be written: No space left on device"):
        folder.bring(paths(folder)[:1])
    assert not any((tmp_path / "cache/parts").iterdir())
    assert is_placeholder(paths(folder)[0])


def test_a_damaged_file_is_fetched_again_by_the_next_process(place, folder, content, logged):
    path = pathlib.Path(folder.path / BIG)
    folder.bring([str(path)])
    path.write_bytes(b"\0" * len(content[BIG]))
    folder.discard(str(path))
    assert "is damaged; what cannot be read in it is read from" in logged[0]
    again = opened_folder(place, folder.path.parent)
    again.need([str(path)], "train", now=True)
    assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(content[BIG]).digest()


def test_a_file_that_was_damaged_on_the_disk_is_fetched_once_more(folder, logged):
    path = paths(folder)[5]
    folder.bring([path])
    pathlib.Path(path).write_bytes(b"\0" * 105)
    assert folder.fetch_again(path)
    assert pathlib.Path(path).read_bytes() == FILES["train/2/005.jpg"]
    assert "was damaged, and is fetched again from" in logged[0]
    assert folder.fetch_again(path)  # Another thread may have seen the damage, too.
    other = paths(folder)[6]
    folder.bring([other])
    assert not folder.fetch_again(other)
    assert len(logged) == 1


def test_what_was_needed_before_counts_while_it_is_missing(folder, content, monkeypatch, logged):
    monkeypatch.setattr(BucketFolder, "_fetch_ahead", lambda *arguments: None)
    free = shutil.disk_usage(folder.path)._replace(free=2_100_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free)
    folder.need(paths(folder, [BIG]), "train")
    with pytest.raises(UserError, match=r"take 2\.1 MB more"):
        folder.need(paths(folder), "test")
    folder.bring(paths(folder, [BIG]))
    folder.need(paths(folder), "test")


def test_an_object_that_became_shorter_is_a_change(place, folder, tmp_path):
    place.connect().delete(BIG)
    (tmp_path / BIG).write_bytes(b"short")
    with open(tmp_path / BIG, "rb") as file:
        place.connect().upload(BIG, file, 5)
    with pytest.raises(UserError, match="has changed since this process listed it"):
        folder.read(str(folder.path / BIG), 1000, 2000)
