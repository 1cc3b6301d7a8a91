"""A line refuses bytes that the other end did not send, or sent in another order."""

import socket
import threading
import time

import pytest

from trainer.distributed import secure_connection
from trainer.distributed.secure_connection import HEADER, ForgedError, Line

TRANSCRIPT = secure_connection.hello(1, 2) + secure_connection.answer()


@pytest.fixture
def pair():
    """The caller's socket and line, and the chief's."""
    left, right = socket.socketpair()
    right.settimeout(1)
    with left, right:
        yield (
            (left, Line(left, b"s", TRANSCRIPT, chief=False)),
            (
                right,
                Line(right, b"s", TRANSCRIPT, chief=True),
            ),
        )


def test_messages_arrive_whole_and_in_order_both_ways(pair):
    (_, caller), (_, chief) = pair
    texts = [b"", b"a" * 100_000, b"\n", bytes(range(256))]
    for one, other in ((caller, chief), (chief, caller)):
        sending = threading.Thread(target=lambda one=one: [one.send(text) for text in texts])
        sending.start()
        assert [other.receive(100_000) for _ in texts] == texts
        sending.join()


def frames(*messages, secret=b"s", transcript=TRANSCRIPT, chief=False):
    own = Line(None, secret, transcript, chief=chief)
    return [own.frame(message) for message in messages]


FIRST, SECOND = frames(b"first", b"second")


@pytest.mark.parametrize(
    "sent",
    [
        SECOND,  # The first message is missing.
        frames(b"first", chief=True)[0],  # The chief's own message is sent back.
        frames(b"first", secret=b"another")[0],
        # This message belongs to another connection.
        frames(b"first", transcript=secure_connection.hello(1, 2) + secure_connection.answer())[0],
        FIRST[:-1] + b"T",
        HEADER.pack(4, FIRST[4:36]) + b"firs",
        bytes(HEADER.size),
        b"\n" * 100,
        HEADER.pack(2**32 - 1, bytes(32)),
    ],
    ids=map(str, range(9)),
)
def test_a_forged_message_is_refused(pair, sent):
    (connection, _), (_, chief) = pair
    connection.sendall(sent)
    with pytest.raises(ForgedError):
        chief.receive(10)


def test_a_replayed_message_is_refused(pair):
    (connection, _), (_, chief) = pair
    connection.sendall(FIRST + FIRST)
    assert chief.receive(10) == b"first"
    with pytest.raises(ForgedError):
        chief.receive(10)


def test_a_message_that_is_too_long_is_refused_at_once(pair):
    (connection, caller), (_, chief) = pair
    connection.sendall(caller.frame(bytes(11))[: HEADER.size])
    with pytest.raises(ForgedError, match="11 bytes"):
        chief.receive(10)


@pytest.mark.parametrize("part", [0, 1, HEADER.size, len(FIRST) - 1])
def test_a_connection_that_ends_in_a_message_is_an_error(pair, part):
    (connection, _), (_, chief) = pair
    connection.sendall(FIRST[:part])
    connection.close()
    with pytest.raises(ConnectionError):
        chief.receive(10)


def test_the_deadline_holds_for_a_message_sent_byte_by_byte(pair):
    (connection, _), (_, chief) = pair

    def drip():
        for byte in FIRST:
            if time.monotonic() < start + 1:
                time.sleep(0.1)
            connection.sendall(bytes([byte]))

    start = time.monotonic()
    dripping = threading.Thread(target=drip)
    dripping.start()
    with pytest.raises(TimeoutError):
        chief.receive(10, start + 0.5)
    assert time.monotonic() - start < 1
    dripping.join()


def test_messages_of_several_threads_arrive_whole(pair):
    (_, caller), (_, chief) = pair
    threads = [
        threading.Thread(target=lambda n=n: [caller.send(b"%d" % n) for _ in range(200)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    found = [chief.receive(10) for _ in range(800)]
    assert sorted(found) == sorted(b"%d" % n for n in range(4) for _ in range(200))
