"""A disk that is really full: a small file system of its own, filled while the run goes on."""

import contextlib
import os
import shutil
import subprocess

import pytest

from tests.support.forked_process import starts_of_their_own
from tests.support.runs import OFTEN, SHORT, command, digest, newest, points, train, wait_for
from tests.support.small_disk import SmallDisk, needs_mounts

pytestmark = needs_mounts


@pytest.fixture
def disk(tmp_path):
    """An empty disk at tmp_path / "disk"."""
    with SmallDisk(tmp_path / "disk") as made:
        yield made


@contextlib.contextmanager
def running(disk, tmp_path, *arguments, name="train"):
    """A run at tmp_path / "disk/run", with its output in tmp_path / "log"; it ends in the context.

    The output is on another disk, which is not full.
    """
    with open(tmp_path / "log", "a") as log:
        process = subprocess.Popen(
            command(tmp_path / "disk/run", *arguments, name=name),
            stdout=log,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=disk.join,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def errors(process):
    """Waits for the end of a process; returns what it said on stderr."""
    return process.communicate()[1]


@pytest.mark.parametrize("emptied", [True, False])
def test_a_full_disk(uninterrupted, disk, tmp_path, emptied):
    log = tmp_path / "log"
    with running(disk, tmp_path, *SHORT, OFTEN) as process:
        wait_for(lambda: newest(disk.path / "run"), process)
        disk.fill()
        wait_for(
            lambda: "cannot be written" in log.read_text() or process.poll() is not None, process
        )
        if emptied:
            disk.empty()
        said = errors(process)
    assert "cannot be written" in log.read_text()
    assert "Traceback" not in log.read_text() + said
    shutil.copytree(disk.path / "run", tmp_path / "run")
    if emptied:
        assert process.returncode == 0, said
    else:
        assert process.returncode == 74
        assert "Free disk space, and give the same command again" in said
        train(tmp_path / "run", *SHORT)
    assert digest(tmp_path / "run") == digest(uninterrupted[0])
    for split in ("train", "eval"):
        assert points(tmp_path / "run", split) == points(uninterrupted[0], split)


def check_has_no_room(process, status):
    said = errors(process)
    assert process.returncode == status
    message = said[said.index("crescendo train:") :]
    assert "No space left on device" in message
    assert len(message.splitlines()) == 2


def test_a_disk_without_room_to_write_the_lock(disk, tmp_path):
    (disk.path / "run").mkdir()
    (disk.path / "run/lock").touch()
    disk.fill()
    with running(disk, tmp_path, *SHORT) as process:
        check_has_no_room(process, 2)


def test_a_disk_that_is_full_at_the_start(disk, tmp_path):
    """Fills the disk while the run imports TensorFlow, after it has written its lock."""
    lock = disk.path / "run/lock"
    with starts_of_their_own(), running(disk, tmp_path, *SHORT) as process:
        wait_for(lambda: lock.exists() and lock.stat().st_size, process)
        disk.fill()
        check_has_no_room(process, 74)


def test_no_room_for_the_picture_of_a_range_test(disk, tmp_path):
    """Leaves room for one and a half pictures: that of TensorBoard, the second one, finds none."""
    flags, run = [*SHORT, "--epochs=0.5"], disk.path / "run"
    with running(disk, tmp_path, *flags, name="range_test") as process:
        said = errors(process)
    assert process.returncode == 0, said
    size = os.path.getsize(run / "range_test.png")
    (run / "range_test.png").unlink()
    shutil.rmtree(run / "tensorboard/range_test")
    disk.fill(leaving=size * 3 // 2)
    with running(disk, tmp_path, *flags, name="range_test") as process:
        said = errors(process)
    assert process.returncode == 74, said
    assert (run / "range_test.png").exists()
    error, remedy = said[said.index("crescendo range_test:") :].splitlines()
    assert "/tensorboard/range_test/events.out.tfevents." in error
    assert "cannot be written: No space left on device" in error
    assert remedy == "Free disk space, and give the same command again."
