import os
import subprocess

from trainer.system import child_process


def test_it_runs_the_program_on_its_cores(tmp_path):
    core = min(os.sched_getaffinity(0))
    with open(tmp_path / "output.txt", "wb") as output:
        process = child_process.start(["plan", "--epochs=0"], {core}, output)
        assert os.sched_getaffinity(process.pid) == {core}
        assert process.wait() == 2
    assert "--epochs=0" in (tmp_path / "output.txt").read_text()


def test_it_runs_on_other_cores_if_its_own_are_taken_away(tmp_path):
    with open(tmp_path / "output.txt", "wb") as output:
        process = child_process.start(["plan", "--epochs=0"], {1023}, output)
    assert process.wait() == 2
    assert "--epochs=0" in (tmp_path / "output.txt").read_text()


def test_a_signal_of_the_terminal_does_not_reach_it(tmp_path):
    with open(tmp_path / "output.txt", "wb") as output:
        process = child_process.start(["plan"], set(), output)
    assert os.getpgid(process.pid) == process.pid != os.getpgid(0)
    assert process.wait() == 0
    assert isinstance(process, subprocess.Popen)
