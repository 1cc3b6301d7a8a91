"""Local folders that stand for folders in buckets: placeholders, fetched and changed files."""

import os

import pytest

from trainer.buckets.objects import Stat
from trainer.data.bucket.placeholders import is_placeholder, paths, update

STATS = {"train/cat/1.jpg": Stat(1000, 50), "train/dog/é=%.jpg": Stat(7, 60), "empty": Stat(0, 70)}


@pytest.fixture
def updated(tmp_path):
    """updated(stats) → the local folder, after a listing with `stats`."""
    folder, parts = tmp_path / "folder", tmp_path / "parts"
    folder.mkdir()
    parts.mkdir()

    def call(stats):
        update(folder, parts, stats)
        assert not any(parts.iterdir())
        return folder

    return call


def files(folder):
    return {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file()}


def test_each_object_has_a_placeholder_of_its_size_without_content(updated):
    found = files(updated(STATS))
    assert {name: path.stat().st_size for name, path in found.items()} == {
        name: stat.size for name, stat in STATS.items()
    }
    assert all(path.stat().st_blocks == 0 for path in found.values())
    assert [name for name, path in found.items() if not is_placeholder(str(path))] == ["empty"]
    assert not is_placeholder(str(updated(STATS) / "missing"))


def test_a_fetched_file_stays_until_its_object_changes(updated):
    path = updated(STATS) / "train/cat/1.jpg"
    path.write_bytes(b"x" * 1000)
    os.utime(path, (50, 50))
    updated(STATS)
    assert path.read_bytes() == b"x" * 1000
    for changed in (Stat(1000, 51), Stat(999, 50)):
        path.write_bytes(b"x" * 1000)
        os.utime(path, (50, 50))
        updated({**STATS, "train/cat/1.jpg": changed})
        assert is_placeholder(str(path))
        assert path.stat().st_size == changed.size
        updated(STATS)


def test_a_file_without_an_object_is_removed(updated):
    folder = updated(STATS)
    (folder / "train/cat/2.jpg").write_bytes(b"old")
    assert files(updated(STATS)).keys() == STATS.keys()


def test_what_killed_processes_left_is_removed_after_a_day(updated, tmp_path, monkeypatch):
    updated(STATS)
    (tmp_path / "parts/left").write_bytes(b"half")
    monkeypatch.setattr("trainer.data.bucket.placeholders._LONGEST_FETCH", -1)
    updated(STATS)


def test_names_that_cannot_be_paths_are_left_out():
    good = ["a", "b/c", "b/d.e", "b/.hidden"]
    wrong = ["", "/a", "x//y", "../z", "b/./c", "b", "nul\0", "folder/"]
    assert list(paths([*wrong, *good])) == good
