import os
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.cluster import children


@given(st.integers(1, 9), st.sets(st.integers(0, 40), min_size=1, max_size=12))
def test_shares_are_even_and_leave_no_core_out(n, cores):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda _: cores)
        shares = children.shares(n)
    assert len(shares) == n
    assert all(shares)
    assert set().union(*shares) <= cores
    if n <= len(cores):
        assert sorted(core for share in shares for core in share) == sorted(cores)
        sizes = [len(share) for share in shares]
        assert max(sizes) - min(sizes) <= 1
    else:
        assert all(len(share) == 1 for share in shares)


def test_it_runs_the_program_on_its_cores(tmp_path):
    core = min(os.sched_getaffinity(0))
    with open(tmp_path / "output.txt", "wb") as output:
        process = children.start(["plan", "--epochs=0"], {core}, output)
        assert os.sched_getaffinity(process.pid) == {core}
        assert process.wait() == 2
    assert "--epochs=0" in (tmp_path / "output.txt").read_text()


def test_a_signal_of_the_terminal_does_not_reach_it(tmp_path):
    with open(tmp_path / "output.txt", "wb") as output:
        process = children.start(["plan"], set(), output)
    assert os.getpgid(process.pid) == process.pid != os.getpgid(0)
    assert process.wait() == 0
    assert isinstance(process, subprocess.Popen)
