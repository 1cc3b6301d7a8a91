"""Heartbeats between a program and the hosts that it drives, on real sockets.

What a lost host does to a whole program is in tests/training/host_test.py.
"""

import contextlib
import socket
import struct
import threading
import time

import pytest

from trainer.distributed import host_monitor
from trainer.distributed.host_monitor import PORT_OFFSET, TOKEN, Programs, watched
from trainer.errors import LostWorkerError, TryAgainError


@pytest.fixture
def host():
    """A host, and its address."""
    programs = Programs()
    while True:
        port = free_port()
        with contextlib.suppress(OSError, OverflowError):
            programs.listen(port)
            return programs, f"127.0.0.1:{port}"


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def hello(seconds):
    """The first bytes of a program that counts as lost after `seconds` of silence."""
    return b"crescendo host 1" + struct.pack("!16sd", b"0123456789abcdef", seconds)


def settled(condition):
    for _ in range(500):
        if condition():
            return True
        time.sleep(0.01)
    return False


def test_a_host_admits_one_program_at_a_time(host, monkeypatch):
    programs, address = host
    assert not programs.admitted("")
    with watched([address], 5.0):
        assert programs.admitted(TOKEN)
        monkeypatch.setattr(host_monitor, "TOKEN", "another program.")
        refused = pytest.raises(TryAgainError, match=f"host 0 .{address}. is in use by another")
        with refused, watched([address], 5.0):
            pass
        assert programs.admitted(TOKEN)
        assert not programs.admitted("another program.")
    assert settled(lambda: not programs.admitted(TOKEN))
    with watched([address], 5.0):
        assert programs.admitted("another program.")


def test_a_silent_program_leaves_its_place(host):
    programs, address = host
    name, port = address.split(":")
    with socket.create_connection((name, int(port) + PORT_OFFSET)) as connection:
        connection.sendall(hello(0.3))
        assert connection.recv(1) == b"+"
        assert programs.admitted("0123456789abcdef")
        assert settled(lambda: not programs.admitted("0123456789abcdef"))


@pytest.mark.parametrize(
    "sent",
    [b"GET / HTTP/1.1\r\nHost: a-name-of-a-host\r\n\r\n", hello(float("nan")), hello(1e300)],
    ids=["http", "NaN seconds", "many seconds"],
)
def test_a_stranger_gets_no_place(host, sent):
    programs, address = host
    name, port = address.split(":")
    with socket.create_connection((name, int(port) + PORT_OFFSET)) as connection:
        connection.sendall(sent[: len(hello(1))])
        assert connection.recv(1) in (b"-", b"")
    with watched([address], 5.0):
        assert programs.admitted(TOKEN)


def test_a_host_that_never_answers_is_named(monkeypatch):
    monkeypatch.setattr(host_monitor, "_FIRST_ANSWER", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1] - PORT_OFFSET}"
    lost = pytest.raises(LostWorkerError, match=f"host 0 .{address}. of --tpu does not answer")
    with lost, watched([address], 5.0):
        pass


def test_a_host_may_answer_long_after_another(host):
    """The first host must not give up the program while the second one starts."""
    programs, address = host
    port = free_port() - PORT_OFFSET
    late = threading.Timer(4, Programs().listen, (port,))
    late.start()
    with watched([address, f"127.0.0.1:{port}"], 3.0):
        assert programs.admitted(TOKEN)


def test_a_program_that_leaves_before_the_answer_keeps_no_place():
    programs = Programs()
    near, far = socket.socketpair()
    far.sendall(hello(60))
    far.close()
    programs._greet(near)
    assert not programs.admitted("0123456789abcdef")


def test_without_hosts_nothing_is_done():
    with watched([], 5.0):
        pass
