"""Disks whose locks, closes and flushes fail: the kernel says so, in a process of its own."""

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(
    (sys.platform, platform.machine()) != ("linux", "x86_64"), reason="knows x86-64's numbers"
)
FAIL = "import errno, os, pathlib, sys\nfrom tests.support import failing_calls as calls\n"
MAIN = "from trainer.main import main\nsys.exit(main(['crescendo', *sys.argv[1:]]))\n"


def python(code, *arguments):
    line = [sys.executable, "-c", FAIL + code, *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("command", ["train", "sweep"])
def test_a_file_system_without_locks_is_named(tmp_path, command):
    code = f"calls.fail(calls.FLOCK, errno.ENOLCK)\n{MAIN}"
    flags = ["--sweep=seed=0"] if command == "sweep" else []
    done = python(code, command, f"--model_dir={tmp_path}/run", *flags)
    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert "cannot be locked, because its file system has no locks: No locks available." in first
    assert first.startswith(f"crescendo {command}: {tmp_path}/run/")
    assert second.startswith("Choose a folder on a local disk, or mount the file system with locks")


def test_a_report_does_not_need_locks(tmp_path):
    code = """
import socket
from tests.support.run_directories import write
from trainer.reports import run_record
folder = write(pathlib.Path(sys.argv[1]) / "run", ended=False)
(folder / "lock").write_text(f"process 1 on {socket.gethostname()}\\n")
calls.fail(calls.FLOCK, errno.ENOLCK)
run = run_record.read(folder, "run")
print(run.state, run.notes)
"""
    done = python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("not finished ['process 1 on ")


CLOSES = """
from trainer.system.atomic_file import write_atomic
path = pathlib.Path(sys.argv[1]) / "x"
path.write_text("before")
descriptor = os.open(path, os.O_RDONLY)  # The number that the next file gets.
os.close(descriptor)
calls.fail(calls.{call}, errno.{error}, descriptor)
try:
    write_atomic(path, "after")
except OSError as error:
    print(error.filename == str(path), path.read_text(), len(os.listdir(path.parent)))
"""


@pytest.mark.parametrize("call", ["CLOSE", "FSYNC"])
@pytest.mark.parametrize("error", ["EDQUOT", "EIO"])
def test_a_file_that_cannot_be_closed_is_not_written(tmp_path, call, error):
    done = python(CLOSES.format(call=call, error=error), tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("True before 1\n")


LOG = """
from trainer.run_dir.metrics_writer import MetricsWriter
log = MetricsWriter(pathlib.Path(sys.argv[1]), update=0)
calls.fail(calls.CLOSE, errno.EIO, log._file.fileno())
log.close()
"""


def test_a_log_that_cannot_be_closed_is_reported(tmp_path):
    done = python(LOG, tmp_path)
    assert done.returncode == 0, done.stderr
    assert f"{tmp_path}/metrics.jsonl cannot be written: Input/output error." in done.stdout


LOCK = """
from trainer.run_dir.directory import lock_run_dir
path = pathlib.Path(sys.argv[1])
descriptor = os.open("/", os.O_RDONLY)
os.close(descriptor)
with lock_run_dir(path, "--seed=0\\n"):
    calls.fail(calls.CLOSE, errno.EIO, descriptor)
print("left")
"""


def test_a_lock_that_cannot_be_closed_fails_no_run(tmp_path):
    done = python(LOCK, tmp_path)
    assert (done.returncode, done.stdout) == (0, "left\n"), done.stderr
