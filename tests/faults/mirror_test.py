"""Copies of a run directory in a bucket: what a kill and a stalled owner leave."""

import itertools
import shutil
import subprocess
import sys
import time

import pytest

from tests.support.bucket_servers import kill
from tests.support.mirrors import content, restored, write
from trainer.run_dir import manifest
from trainer.run_dir.mirror import Mirror


def states(folder):
    """The content of the run directory after each of its states."""
    found = []
    for update in (1, 2):
        write(folder, update)
        found.append(content(folder))
    return found


def kill_at(place, number, arrives, folder):
    """Copies the states in a process that is killed at a request; returns its status.

    `arrives`: the request is carried out before the kill, and only its answer is lost.
    """
    running = []

    def end():
        while not running:
            time.sleep(0.001)
        kill(running[0].pid)

    def rule(request):
        if request.number != number:
            return None
        if arrives:
            return "kill"
        end()
        return "drop"

    place.proxy.requests.clear()
    place.proxy.rule, place.proxy.killed = rule, end
    command = [sys.executable, "-m", "tests.support.mirrored", str(folder), place.url, "1"]
    running.append(subprocess.Popen(command, stderr=subprocess.PIPE))
    _, errors = running[0].communicate()
    place.proxy.rule = lambda request: None
    assert running[0].returncode in (0, -9), errors
    return running[0].returncode


@pytest.mark.parametrize("arrives", [False, True], ids=["before", "after"])
def test_a_kill_at_any_request_leaves_a_whole_state(place, tmp_path, arrives):
    expected = states(tmp_path / "expected")
    committed = 0
    for number in itertools.count(1):
        place.folder = f"{tmp_path.name}/{number}"
        status = kill_at(place, number, arrives, tmp_path / f"run{number}")
        state, files = restored(place, tmp_path / f"new{number}")
        if status == 0:
            assert files == expected[-1]
            break
        if state is None:
            assert committed == 0
            continue
        assert state.number >= committed
        committed = state.number
        assert files == expected[committed - 1]
        # The next owner commits its own copy, and deletes all of the killed one's.
        owner = Mirror(place.connect(), tmp_path / f"new{number}", 2)
        owner.copy()
        owner.clean()
        assert manifest.newest(place.connect(), place.url).generation == 2
        assert all(n.startswith("generation-000002/") for n in place.connect().names(""))
    assert number > 10


def test_a_stalled_owner_cannot_harm_the_next_one(place, tmp_path):
    run, other = tmp_path / "run", tmp_path / "other"
    write(run, 1)
    stalled = Mirror(place.connect(), run, 1)
    stalled.copy()
    _, files = restored(place, other)
    owner = Mirror(place.connect(), other, 2)
    owner.copy()
    owner.clean()
    for update in (2, 3, 4):
        write(run, update)
        stalled.copy()
        stalled.clean()
    assert manifest.newest(place.connect(), place.url).generation == 2
    assert restored(place, tmp_path / "new")[1] == files
    shutil.rmtree(tmp_path / "new")
    write(other, 5)
    owner.copy()
    owner.clean()
    assert restored(place, tmp_path / "new")[1] == content(other)
