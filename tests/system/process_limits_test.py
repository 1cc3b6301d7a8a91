"""Real limits of the kernel's, in processes of their own."""

import subprocess
import sys

import pytest

from tests.support.run_directories import write
from tests.support.runs import SHORT, command
from trainer.system import process_limits


@pytest.mark.parametrize(
    ("limit", "message"),
    [
        ("-f 3", "`ulimit -f` allows files of 3,072 bytes, and TensorFlow writes its own code"),
        ("-v 1500000", "`ulimit -v` allows 1.5 GB of addresses, and TensorFlow takes 2."),
        ("-v 500000", "`ulimit -v` allows 0.5 GB of addresses, and TensorFlow takes 2."),
    ],
)
@pytest.mark.parametrize("name", ["train", "evaluate", "export"])
def test_a_limit_that_is_too_low_is_named(tmp_path, name, limit, message):
    run = command(tmp_path, *(SHORT if name == "train" else ()), name=name)
    if name != "train":
        (tmp_path / "flags.txt").touch()
    shell = ["bash", "-c", f'ulimit {limit}; exec "$@"', "-", *run]
    done = subprocess.run(shell, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    first, second = done.stderr.splitlines()
    assert first.startswith(f"crescendo {name}: {message}")
    assert second.startswith("Raise the limit: ulimit ")


@pytest.mark.parametrize("limit", ["-f 0", "-f 1"])
def test_a_folder_in_which_nothing_can_be_written(tmp_path, limit):
    shell = ["bash", "-c", f'ulimit {limit}; exec "$@"', "-", *command(tmp_path / "run", *SHORT)]
    done = subprocess.run(shell, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 2
    assert "(None)" not in done.stderr


THREADS = """
import os, resource, sys
from trainer.system import process_limits
from trainer.errors import UserError
resource.setrlimit(resource.RLIMIT_NPROC, (5, 5))
if os.getuid() == 0:  # The kernel does not limit root.
    os.setuid(54321)
try:
    process_limits.check()
except UserError as error:
    print(error)
"""


def test_threads_that_cannot_be_started():
    done = subprocess.run([sys.executable, "-c", THREADS], capture_output=True, text=True)
    first, second = done.stdout.splitlines()
    assert "threads can be started, and TensorFlow needs " in first
    assert "Raise ulimit -u, or the container's limit of processes" in second


def test_other_limits_are_enough():
    code = "from trainer.system import process_limits; process_limits.check()"
    shell = ["bash", "-c", 'ulimit -v 4000000 -f 100; exec "$@"', "-", sys.executable, "-c", code]
    done = subprocess.run(shell, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "`ulimit -v` allows 4.1 GB of addresses: if a run needs more" in done.stderr


def test_what_python_says_at_a_limit():
    for error in (
        MemoryError(),
        RuntimeError("can't start new thread"),
        ImportError("libtensorflow_cc.so.2: failed to map segment from shared object"),
    ):
        assert len(process_limits.reached(error).splitlines()) == 2
    assert process_limits.reached(RuntimeError("dictionary changed size during iteration")) == ""


def test_a_report_without_memory_has_no_traceback(tmp_path):
    write(tmp_path / "run")
    report = [sys.executable, "-m", "trainer", "report", str(tmp_path / "run")]
    shell = ["bash", "-c", 'ulimit -v 150000; exec "$@"', "-", *report, f"--output={tmp_path}/r"]
    done = subprocess.run(shell, capture_output=True, text=True)
    assert "Traceback" not in done.stderr
    assert done.returncode != 0
