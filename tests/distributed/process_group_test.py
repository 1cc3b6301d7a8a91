import threading

import numpy as np
import pytest

from trainer.distributed.process_group import ProcessGroup


def on_all(n, function):
    """Runs `function` on n processes, whose sums wait for each other; returns their results."""
    barrier, given, results = threading.Barrier(n, timeout=5), [None] * n, [None] * n

    def one(index):
        def summed(values):
            assert values.dtype == np.float64
            given[index] = values
            barrier.wait()
            total = sum(given)
            barrier.wait()
            return total

        results[index] = function(ProcessGroup(index, n, summed))

    threads = [threading.Thread(target=one, args=[i]) for i in range(n)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


@pytest.mark.parametrize("stopping", [None, 0, 1, 2])
def test_agree_gives_any_hosts_stop_and_the_chiefs_numbers(stopping):
    found = on_all(3, lambda hosts: hosts.agree(hosts.index == stopping, 7 + hosts.index, True))
    assert found == [(stopping is not None, [7, 1])] * 3


def test_broadcast_gives_the_chiefs_values():
    found = on_all(2, lambda hosts: hosts.broadcast(np.array([0.1, np.inf]) * (1 + hosts.index)))
    for values in found:
        np.testing.assert_array_equal(values, [0.1, np.inf])


def test_replicas_are_assigned_in_order():
    assert [list(ProcessGroup(i, 3).local(6)) for i in range(3)] == [[0, 1], [2, 3], [4, 5]]


def test_a_single_process_agrees_with_itself():
    assert ProcessGroup().agree(True, 3) == (True, [3])
    assert ProcessGroup().local(4) == range(4)
    assert ProcessGroup().chief


def test_a_single_process_gathers_its_own_text():
    assert ProcessGroup().all_gather("alone") == ["alone"]
    assert ProcessGroup().broadcast_text("alone") == "alone"
