"""A training goes on, whatever happens to its output."""

import contextlib
import os
import pty
import signal
import subprocess
import time

import pytest

from tests.support.runs import SHORT, command, newest, result, wait_for
from trainer.run_dir.metrics import read

# Sorted by what happens to stdout and stderr.
SHELL = {
    "a full disk": '"$@" >/dev/full 2>&1',
    "closed streams": '"$@" <&- >&- 2>&-',
    "a reader that leaves": 'set -o pipefail; "$@" 2>&1 | head -n 1',
    "an ASCII locale": 'PYTHONIOENCODING=ascii "$@"',
}


@pytest.mark.parametrize("what", SHELL)
def test_a_run_ends_well_without_its_output(tmp_path, what):
    flags = [*SHORT, "--epochs=0.2"]
    line = ["bash", "-c", SHELL[what], "bash", *command(tmp_path / "run", *flags)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert result(tmp_path / "run")["updates"] == 13


def on_a_terminal(model_dir, *before):
    """A run that is the leader of a session on a terminal of its own, and the other end."""
    ours, theirs = pty.openpty()
    # Under `nohup`, the tests and their children would ignore it.
    ignored = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    process = subprocess.Popen(
        ["setsid", "--ctty", *before, *command(model_dir, *SHORT, "--epochs=100")],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    signal.signal(signal.SIGHUP, ignored)
    os.close(theirs)
    os.set_blocking(ours, False)

    def logged():
        with contextlib.suppress(BlockingIOError):
            os.read(ours, 2**16)  # Or it is full, and the run waits.
        return read(model_dir / "metrics.jsonl")

    wait_for(logged, process)
    return process, ours


def test_a_terminal_that_hangs_up_stops_the_run_with_a_checkpoint(tmp_path):
    process, terminal = on_a_terminal(tmp_path / "run")
    os.close(terminal)  # The kernel sends SIGHUP; output is an error from now on.
    assert process.wait(20) == 75
    assert newest(tmp_path / "run") is not None


def test_a_hangup_that_is_ignored_at_the_start_stays_ignored(tmp_path):
    """Ignores SIGHUP from the start, as `nohup` does."""
    model_dir = tmp_path / "run"
    process, terminal = on_a_terminal(model_dir, "sh", "-c", 'trap "" HUP; exec "$@"', "sh")
    os.close(terminal)
    process.send_signal(signal.SIGHUP)
    seen = len(read(model_dir / "metrics.jsonl"))
    wait_for(lambda: len(read(model_dir / "metrics.jsonl")) > seen, process)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == 75
