"""tpu_worker.sh: whether the process of a job still runs."""

import pathlib
import shutil
import subprocess

import pytest

SCRIPT = "scripts/tpu/tpu_worker.sh"


@pytest.fixture
def status(tmp_path):
    """status(process, started) → what the script says if it noted this process as its worker's."""
    script = tmp_path / SCRIPT
    script.parent.mkdir(parents=True)
    shutil.copy(SCRIPT, script)

    def ask(process, started):
        (tmp_path / "worker.pid").write_text(f"{process} {started}\n")
        said = subprocess.run(["bash", script, "status"], stdout=subprocess.PIPE, check=True)
        return said.stdout.decode().strip()

    return ask


def start_time(process):
    """Field 22 of proc_pid_stat(5)."""
    return pathlib.Path(f"/proc/{process.pid}/stat").read_text().rpartition(") ")[2].split()[19]


@pytest.fixture
def process():
    """A process with no command line, like one that has just called execve."""
    with subprocess.Popen(["", "600"], executable=shutil.which("sleep")) as started:
        yield started
        started.kill()


def test_a_process_runs_whatever_its_command_line(status, process):
    assert status(process.pid, start_time(process)) == "running"


def test_a_process_with_the_number_of_an_earlier_one_is_not_the_jobs(status, process):
    assert status(process.pid, int(start_time(process)) - 1) == "lost"


def test_a_process_that_has_ended_does_not_run(status, process):
    started = start_time(process)
    process.kill()
    while ") Z " not in pathlib.Path(f"/proc/{process.pid}/stat").read_text():
        pass
    assert status(process.pid, started) == "lost"  # It is still in the table of processes.
    process.wait()
    assert status(process.pid, started) == "lost"
    assert status(process.pid, "") == "lost"
