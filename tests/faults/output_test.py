"""A training goes on, whatever happens to its output."""

import contextlib
import functools
import os
import pty
import signal
import subprocess
import time

import pytest

from tests.support import terminal
from tests.support.runs import SHORT, command, newest, result, wait_for
from trainer.run_dir.metrics import read

FLAGS = [*SHORT, "--epochs=0.2"]
# What Python sees when it starts, so that the run does not share its imports.
SHELL = {
    "closed streams": '"$@" <&- >&- 2>&-',
    "an ASCII locale": 'PYTHONIOENCODING=ascii "$@"',
}


@pytest.mark.parametrize("what", SHELL)
def test_a_run_ends_well_without_its_output(tmp_path, what):
    line = ["bash", "-c", SHELL[what], "bash", *command(tmp_path / "run", *FLAGS)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert result(tmp_path / "run")["updates"] == 13


def test_a_run_ends_well_without_room_for_its_output(tmp_path):
    with open("/dev/full", "wb") as full:
        line = command(tmp_path / "run", *FLAGS)
        done = subprocess.run(line, stdout=full, stderr=subprocess.STDOUT, timeout=120)
    assert done.returncode == 0
    assert result(tmp_path / "run")["updates"] == 13


def test_a_run_ends_well_if_the_reader_of_its_output_leaves(tmp_path):
    line = command(tmp_path / "run", *FLAGS)
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert process.stdout.readline()
    process.stdout.close()
    assert process.wait(120) == 0
    assert result(tmp_path / "run")["updates"] == 13


def on_a_terminal(model_dir, hangup):
    """A run that is the leader of a session on a terminal of its own, and the other end.

    `hangup`: how it handles SIGHUP from its start on.
    """
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        command(model_dir, *SHORT, "--epochs=100"),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=functools.partial(terminal.lead, hangup),
    )
    os.close(theirs)
    os.set_blocking(ours, False)

    def logged():
        with contextlib.suppress(BlockingIOError):
            os.read(ours, 2**16)  # Or it is full, and the run waits.
        return read(model_dir / "metrics.jsonl")

    wait_for(logged, process)
    return process, ours


def test_a_terminal_that_hangs_up_stops_the_run_with_a_checkpoint(tmp_path):
    # Under `nohup`, the tests and their children would ignore it.
    process, end = on_a_terminal(tmp_path / "run", signal.SIG_DFL)
    os.close(end)  # The kernel sends SIGHUP; output is an error from now on.
    assert process.wait(20) == 75
    assert newest(tmp_path / "run") is not None


def test_a_hangup_that_is_ignored_at_the_start_stays_ignored(tmp_path):
    """Ignores SIGHUP from the start, as `nohup` does."""
    model_dir = tmp_path / "run"
    process, end = on_a_terminal(model_dir, signal.SIG_IGN)
    os.close(end)
    process.send_signal(signal.SIGHUP)
    seen = len(read(model_dir / "metrics.jsonl"))
    wait_for(lambda: len(read(model_dir / "metrics.jsonl")) > seen, process)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 75
