"""A sweep that is killed or stopped in the middle."""

import json
import os
import signal

from tests.support.runs import (
    OFTEN,
    SHORT,
    digest,
    newest,
    points,
    result,
    started,
    train,
    wait_for,
)


def ends(folder):
    return [point["status"] for point in json.loads((folder / "sweep.json").read_text())["points"]]


def test_killed_in_the_middle_and_called_again(uninterrupted, tmp_path):
    """Finished points are not repeated; the one that was killed goes on, and ends the same."""
    folder = tmp_path / "sweep"
    flags = [*SHORT, OFTEN, "--sweep=seed=1,0"]
    process = started(folder, *flags, name="sweep")
    wait_for(lambda: newest(folder / "seed=0"), process)
    os.kill(process.pid, signal.SIGKILL)  # It alone.
    process.communicate()
    before = os.stat(folder / "seed=1" / "result.json")
    assert ends(folder) == [0, None]

    # At once, while what the killed one had started may still write its checkpoint.
    again = train(folder, *flags, name="sweep")
    assert "1 of 2 points are finished" in again.stdout
    assert "seed=1: starts" not in again.stdout
    assert os.stat(folder / "seed=1" / "result.json").st_ino == before.st_ino
    assert (folder / "seed=1" / "output.txt").read_text().count("loading TensorFlow") == 1
    # The process did not outlive the sweep: it stopped, with a checkpoint.
    assert "[2/2] seed=0: resumes" in again.stdout
    assert "stopped, with a checkpoint" in (folder / "seed=0" / "output.txt").read_text()
    assert result(folder / "seed=0")["resumes"] == 1
    assert digest(folder / "seed=0") == digest(uninterrupted[0])
    assert points(folder / "seed=0", "eval") == points(uninterrupted[0], "eval")
    assert ends(folder) == [0, 0]


# Three points, two at once, whose steps are traced in half the time.
THREE = [
    *SHORT,
    "--model=tests.support.models:reshaping",
    "--augment=none",
    "--epochs=20",
    "--sweep=seed=0,1,2",
    "--sweep_parallel=2",
]


def stopped(folder, number):
    """Sends a signal to the sweep when two points have begun to train."""
    process = started(folder, *THREE, name="sweep")
    wait_for(lambda: all(points(folder / f"seed={seed}") for seed in (0, 1)), process)
    process.send_signal(number)
    out, error = process.communicate(timeout=30)
    assert process.returncode == 75, error
    assert "[3/3] seed=2: starts" not in out
    assert ends(folder) == [75, 75, None]
    assert newest(folder / "seed=0") is not None
    assert newest(folder / "seed=1") is not None


def test_an_interrupt_goes_to_the_points_which_checkpoint(tmp_path):
    stopped(tmp_path / "sweep", signal.SIGINT)


def test_a_point_that_is_stopped_or_killed_goes_on_at_the_next_call(tmp_path):
    """Stops all points, then kills one as the kernel does without memory: it is not failed.

    The others finish.
    """
    folder = tmp_path / "sweep"
    stopped(folder, signal.SIGTERM)
    before = newest(folder / "seed=0")
    process = started(folder, *THREE, OFTEN, name="sweep")
    wait_for(lambda: newest(folder / "seed=0") != before, process)
    owner = (folder / "seed=0" / "lock").read_text()  # process 12 on here
    os.kill(int(owner.split()[1]), signal.SIGKILL)
    out, _ = process.communicate(timeout=120)
    assert out.count(": resumes") == 2
    assert process.returncode == 137
    assert ends(folder) == [137, 0, 0]
    assert "[1/3] seed=0: status 137: killed by SIGKILL" in out
    assert result(folder / "seed=1")["resumes"] == 1
    again = train(folder, *THREE, name="sweep")
    assert "[1/3] seed=0: resumes" in again.stdout
    assert again.stdout.count(": resumes") == 1
    assert ends(folder) == [0, 0, 0]
    assert result(folder / "seed=0")["resumes"] == 2


def test_a_signal_without_a_name_is_said_by_its_number(tmp_path):
    process = started(tmp_path, *SHORT, "--epochs=1", "--sweep=seed=0", name="sweep")
    lock = tmp_path / "seed=0" / "lock"
    wait_for(lambda: lock.exists() and lock.read_text().strip(), process)
    os.kill(int(lock.read_text().split()[1]), signal.SIGRTMIN + 3)
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 128 + signal.SIGRTMIN + 3
    assert f"seed=0: status {process.returncode}: killed by signal {signal.SIGRTMIN + 3}" in out
