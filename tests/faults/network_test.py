"""Hosts that are cut off from each other, and what they send while they are not."""

import time

import pytest

from tests.support.hosts import Network, allowed
from tests.support.runs import OFTEN, newest, points, result, train, wait_for
from tests.support.workers import SMOOTH

pytestmark = pytest.mark.skipif(not allowed(), reason="needs the right to make network namespaces")


# After SMOOTH: seconds enough to be cut off in.
LONGER = ["--epochs=12"]


def left(processes, status):
    outputs = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [status] * len(processes), outputs
    return outputs


def test_a_host_that_is_cut_off_ends_all_and_two_finish_what_three_began(tmp_path):
    one, model_dir = tmp_path / "one", tmp_path / "run"
    train(one, *SMOOTH, *LONGER)
    with Network(3) as network:
        processes = network.started(3, model_dir, *SMOOTH, *LONGER, OFTEN, "--worker_timeout=6")
        wait_for(lambda: newest(model_dir) and int(newest(model_dir).stem) > 20, processes[0])
        network.cut(2)
        start = time.monotonic()
        outputs = left(processes, 76)
        assert time.monotonic() - start < 6
        for index, lost in enumerate((2, 2, 0)):
            assert (
                f"worker {index} ({network.addresses[index]}) has lost worker {lost} ("
                in (outputs[index])
            )
        (_, second) = left(network.started(2, model_dir, *SMOOTH, *LONGER), 0)
    assert "top1" not in second  # The chief alone speaks.
    assert result(model_dir)["resumes"] == 1
    for split in ("train", "eval"):
        for ours, theirs in zip(points(model_dir, split), points(one, split), strict=True):
            assert ours["update"] == theirs["update"]
            assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-4)
            assert ours["top1"] == pytest.approx(theirs["top1"], abs=1e-3)
