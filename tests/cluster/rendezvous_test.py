import concurrent.futures
import socket
import time

import pytest

from trainer.cluster.rendezvous import meet
from trainer.cluster.workers import Worker
from trainer.errors import LostWorkerError, UserError


def free_ports(n):
    servers = [socket.create_server(("", 0)) for _ in range(n)]
    found = [server.getsockname()[1] for server in servers]
    for server in servers:
        server.close()
    return found


@pytest.fixture
def addresses():
    return tuple(f"localhost:{port}" for port in free_ports(3))


def called(addresses, indices, same=({},) * 3, timeout=5.0, late=0.0):
    """What meet raises in each of `indices`, or to whom it has lines, and the seconds it took."""

    def one(index):
        time.sleep(late * index)
        start = time.monotonic()
        try:
            lines = meet(Worker(addresses, index), same[index], timeout)
            # The ports are free for TensorFlow, with the lines open.
            socket.create_server(("", int(addresses[index].rpartition(":")[2]))).close()
            for other, line in lines.items():
                line.sendall(b"%d\n" % index)
                line.settimeout(timeout)
                assert line.makefile("rb").readline() == b"%d\n" % other
                line.close()
            return set(lines), time.monotonic() - start
        except (UserError, LostWorkerError) as error:
            return str(error), time.monotonic() - start

    with concurrent.futures.ThreadPoolExecutor() as pool:
        return list(pool.map(one, indices))


def test_all_go_on_once_all_are_there(addresses):
    found = called(addresses, [0, 1, 2], late=0.5)
    assert [lines for lines, _ in found] == [{1, 2}, {0}, {0}]
    assert 0.9 < found[0][1] < 2.5


def test_alone_there_is_none_to_wait_for(addresses):
    assert called(addresses[:1], [0])[0][0] == set()


@pytest.mark.parametrize(("there", "missing"), [([0, 2], 1), ([1, 2], 0)])
def test_one_that_does_not_come_is_named_in_time(addresses, there, missing):
    (first, seconds), *_ = called(addresses, there, timeout=1.0)
    assert f"worker {missing} ({addresses[missing]}) did not come within 1 s" in first
    assert len(first.splitlines()) == 2
    assert seconds < 3


def test_what_differs_is_refused_to_all(addresses):
    flags = [{"GPUs": 1, "flags": ["--seed=1", f"--epochs={n}"]} for n in (3, 3, 4)]
    found = called(addresses, [0, 1, 2], flags, late=0.5)
    text = (
        f"worker 2 has the flags --epochs=4, and worker 0 ({addresses[0]}) --epochs=3:\n"
        "start all workers with the same."
    )
    assert [error for error, _ in found] == [text] * 3
    assert found[0][1] < 3


def test_a_port_that_is_taken_is_refused_at_once(addresses):
    with socket.create_server(("", int(addresses[1].rpartition(":")[2]))):
        ((error, seconds),) = called(addresses, [1], timeout=60.0)
    assert f"worker 1 ({addresses[1]}) cannot listen on its port: " in error
    assert seconds < 1


def test_other_programs_calls_do_no_harm(addresses):
    def stray():
        lines = (b"GET / HTTP/1.1", b"", b"{}", b"[]", b'{"index": null}', b'{"index": 2}')
        for text in lines:
            while True:
                try:
                    host, _, port = addresses[0].rpartition(":")
                    with socket.create_connection((host, int(port))) as call:
                        call.sendall(text + b"\n")
                        break
                except OSError:
                    time.sleep(0.05)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        strays = pool.submit(stray)
        found = called(addresses, [0, 1, 2], late=0.5)
        strays.result()
    assert [lines for lines, _ in found] == [{1, 2}, {0}, {0}]


def test_a_chief_of_before_that_still_listens_is_not_met(addresses):
    """As a server of gRPC does, it greets with bytes that are no text."""
    host, _, port = addresses[0].rpartition(":")

    def old():
        with socket.create_server((host, int(port))) as server:
            call, _ = server.accept()
            with call:
                call.sendall(bytes([0, 0, 24, 4, 0, 0xFF, 0xFE]) + b"\n")

    with concurrent.futures.ThreadPoolExecutor() as pool:
        before = pool.submit(old)
        other = pool.submit(called, addresses[:2], [1])
        before.result()
        first = called(addresses[:2], [0])
        assert [first[0][0], other.result()[0][0]] == [{1}, {0}]
