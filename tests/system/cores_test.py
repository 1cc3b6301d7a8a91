import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.system.cores import split_cores, usable


def test_those_of_this_process_not_of_the_machine(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 128)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {70, 3, 5, 64}, raising=False)
    assert usable() == [3, 5, 64, 70]


def test_where_the_system_does_not_say_all_are(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert usable() == [0, 1, 2, 3]
    assert split_cores(2) == [{0, 1}, {2, 3}]


@given(st.integers(1, 9), st.sets(st.integers(0, 40), min_size=1, max_size=12))
def test_shares_are_even_and_leave_no_core_out(n, cores):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda _: cores)
        parts = split_cores(n)
    assert len(parts) == n
    assert all(parts)
    assert set().union(*parts) <= cores
    if n <= len(cores):
        assert sorted(core for part in parts for core in part) == sorted(cores)
        sizes = [len(part) for part in parts]
        assert max(sizes) - min(sizes) <= 1
    else:
        assert all(len(part) == 1 for part in parts)
        loads = [sum(core in part for part in parts) for core in cores]
        assert max(loads) - min(loads) <= 1
