"""Room for a folder's files: folders that no process uses make way, the longest unused first."""

import os
import subprocess
import sys

import pytest

from trainer.data.bucket import disk_space
from trainer.errors import UserError

HOLD = """
import pathlib, sys
from trainer.data.bucket import disk_space
disk_space.hold(pathlib.Path(sys.argv[1]))
print("holds", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache with room for three files of a folder each, of 100 bytes."""

    class Usage:
        def __init__(self, path):
            names = ("a", "b", "c", "own")
            used = sum((tmp_path / name / "file").exists() for name in names)
            self.free = 400 - 100 * used

    for age, name in enumerate(("c", "a", "b")):
        disk_space.hold(tmp_path / name)
        (tmp_path / name / "file").write_bytes(b"x" * 100)
        os.utime(tmp_path / name / ".used", (1000 + age, 1000 + age))
    for lock in disk_space._HOLDING:
        lock.close()
    disk_space._HOLDING.clear()
    disk_space.hold(tmp_path / "own")
    monkeypatch.setattr(disk_space.shutil, "disk_usage", Usage)
    return tmp_path


def names(cache):
    return sorted(path.name for path in cache.iterdir())


def refusal(free):
    return f"{free} bytes are free"


def test_nothing_is_removed_while_the_disk_has_room(cache):
    disk_space.make_room(cache / "own", 100, refusal)
    assert names(cache) == ["a", "b", "c", "own"]


def test_the_longest_unused_folders_are_removed_first(cache, logged):
    disk_space.make_room(cache / "own", 200, refusal)
    assert names(cache) == ["a", "b", "own"]
    disk_space.make_room(cache / "own", 300, refusal)
    assert names(cache) == ["b", "own"]
    assert logged[0].startswith(f"removing {cache}/c, last used on 1970-01-01, from the cache")


def test_a_disk_that_is_too_small_is_refused_with_its_room(cache, logged):
    with pytest.raises(UserError, match="400 bytes are free"):
        disk_space.make_room(cache / "own", 401, refusal)


def test_a_folder_in_use_is_not_removed(cache, logged):
    user = subprocess.Popen(
        [sys.executable, "-c", HOLD, cache / "c"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert user.stdout.readline() == b"holds\n"
    with pytest.raises(UserError, match="300 bytes are free"):
        disk_space.make_room(cache / "own", 400, refusal)
    assert names(cache) == ["c", "own"]
    user.kill()
    user.communicate()
    disk_space.make_room(cache / "own", 400, refusal)
    assert names(cache) == ["own"]


def test_what_a_killed_removal_left_is_removed(cache):
    left = cache / ".gs-bucket-photographs-12345678-0123456789abcdef-12345678"
    left.mkdir()
    (left / "file").write_bytes(b"x")
    disk_space.make_room(cache / "own", 100, refusal)
    assert left.exists()
    with pytest.raises(UserError):
        disk_space.make_room(cache / "own", 500, refusal)
    assert not left.exists()


def test_hidden_folders_of_others_are_kept(cache, logged):
    """The user may have named a folder of their own with --cache_dir."""
    others = [".git", ".c-12345678", ".git-0123456789abcdef-12345678"]
    for name in others:
        (cache / name).mkdir()
        (cache / name / "file").write_bytes(b"x")
    with pytest.raises(UserError):
        disk_space.make_room(cache / "own", 500, refusal)
    assert names(cache) == sorted([*others, "own"])


def test_a_folder_that_is_made_anew_while_a_process_waits_is_held(cache):
    """The lock of a removed folder's file would not keep the new folder."""
    (cache / "a").rename(cache / "removed")
    disk_space.hold(cache / "a")
    assert disk_space._is_file(disk_space._HOLDING[-1], cache / "a" / ".used")
    assert not disk_space._is_file(disk_space._HOLDING[-1], cache / "removed" / ".used")
