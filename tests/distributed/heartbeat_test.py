import concurrent.futures
import queue
import socket
import threading
import time

import pytest

from trainer.distributed.heartbeat import Heartbeat
from trainer.distributed.secure_connection import Line

SILENCE = 0.5


@pytest.fixture
def star():
    """The lines of three workers: the chief's to the two others, and the others' to the chief."""
    pairs = [socket.socketpair() for _ in range(2)]
    (a, b), (c, d) = (
        [Line(end, b"secret", b"", chief=end is pair[0]) for end in pair] for pair in pairs
    )
    yield [{1: a, 2: c}, {0: b}, {0: d}]
    for line in (a, b, c, d):
        line.close()


def beating(star, *indices):
    """Starts the heartbeats of `indices`; returns each with the queue of workers it has lost."""
    learned = [queue.Queue() for _ in star]
    return [(Heartbeat(star[i], SILENCE, learned[i].put), learned[i]) for i in indices]


def test_a_worker_that_beats_is_not_lost(star):
    pulses = beating(star, 0, 1, 2)
    time.sleep(3 * SILENCE)
    for pulse, _ in pulses:
        pulse.leave(done=True)
    time.sleep(SILENCE)
    assert all(learned.empty() for _, learned in pulses)


@pytest.mark.parametrize("hangs", [0, 1, 2])
def test_a_silent_worker_is_lost_to_all(star, hangs):
    pulses = beating(star, *{0, 1, 2} - {hangs})
    start = time.monotonic()
    assert [learned.get(timeout=3 * SILENCE) for _, learned in pulses] == [hangs] * 2
    assert SILENCE * 0.9 < time.monotonic() - start < 2 * SILENCE


@pytest.mark.parametrize("dies", [0, 1, 2])
def test_a_worker_whose_process_ends_is_lost_at_once(star, dies):
    pulses = beating(star, *{0, 1, 2} - {dies})
    start = time.monotonic()
    for line in star[dies].values():
        line.close()
    assert [learned.get(timeout=SILENCE / 2) for _, learned in pulses] == [dies] * 2
    assert time.monotonic() - start < SILENCE / 2


def test_a_worker_that_says_goodbye_is_not_lost(star):
    (leaving, _), (_, learned), (_, others) = beating(star, 2, 0, 1)
    leaving.leave(done=True)
    for line in star[2].values():
        line.close()
    time.sleep(2 * SILENCE)
    assert learned.empty()
    assert others.empty()


def test_a_worker_that_fails_is_lost_and_loses_no_other(star):
    (failing, heard), (_, learned), (_, others) = beating(star, 2, 0, 1)
    failing.leave(done=False)
    assert learned.get(timeout=3 * SILENCE) == others.get(timeout=SILENCE) == 2
    for line in star[0].values():
        line.close()
    time.sleep(SILENCE / 2)
    assert heard.empty()


def test_no_worker_leaves_before_all_are_done(star):
    """A worker that still computes may need the other processes."""
    pulses = [pulse for pulse, _ in beating(star, 0, 1, 2)]
    left = queue.Queue()

    def leave(index):
        pulses[index].leave(done=True)
        left.put(index)

    for index in (1, 0):
        threading.Thread(target=leave, args=(index,)).start()
    with pytest.raises(queue.Empty):
        left.get(timeout=SILENCE / 2)
    leave(2)
    assert {left.get(timeout=SILENCE / 4) for _ in pulses} == {0, 1, 2}


def test_only_one_worker_is_reported_lost(star):
    ((_, learned),) = beating(star, 0)
    time.sleep(2 * SILENCE)
    assert learned.qsize() == 1


@pytest.mark.parametrize("texts", [["", "zwölf", "a"], ["x" * 300_000, "", "y" * 70_000]])
def test_texts_are_exchanged_by_all_workers(star, texts):
    heartbeats = [heartbeat for heartbeat, _ in beating(star, 0, 1, 2)]

    def exchange(index):
        return [heartbeats[index].exchange(texts[index]) for _ in range(3)]

    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        assert list(pool.map(exchange, range(3))) == [[texts] * 3] * 3


def test_a_worker_that_dies_before_its_text_is_lost(star):
    (chief, learned), (other, _) = beating(star, 0, 1)
    for heartbeat in (chief, other):
        threading.Thread(target=heartbeat.exchange, args=("text",), daemon=True).start()
    for line in star[2].values():
        line.close()
    assert learned.get(timeout=SILENCE / 2) == 2
