import concurrent.futures
import contextlib
import socket
import time

import pytest

from trainer.distributed.rendezvous import _listening, rendezvous
from trainer.distributed.worker import Worker
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


def called(addresses, indices, same=({},) * 3, timeout=5.0, late=0.0, secrets=(b"",) * 3):
    """Calls `rendezvous` as each of `indices`; returns its error or workers, and the seconds."""

    def one(index):
        time.sleep(late * index)
        start = time.monotonic()
        try:
            lines = rendezvous(Worker(addresses, index, secrets[index]), same[index], timeout)
            # While the lines are open, the ports are free for TensorFlow.
            socket.create_server(("", int(addresses[index].rpartition(":")[2]))).close()
            for other, line in lines.items():
                line.send(b"%d" % index)
                assert line.receive(9, time.monotonic() + timeout) == b"%d" % other
                line.close()
            return set(lines), time.monotonic() - start
        except (UserError, LostWorkerError) as error:
            return str(error), time.monotonic() - start

    with concurrent.futures.ThreadPoolExecutor() as pool:
        return list(pool.map(one, indices))


def test_all_workers_continue_when_all_have_arrived(addresses):
    found = called(addresses, [0, 1, 2], late=0.5)
    assert [lines for lines, _ in found] == [{1, 2}, {0}, {0}]
    assert 0.9 < found[0][1] < 2.5


def test_a_single_worker_waits_for_nobody(addresses):
    assert called(addresses[:1], [0])[0][0] == set()


@pytest.mark.parametrize(("there", "missing"), [([0, 2], 1), ([1, 2], 0)])
def test_a_missing_worker_is_named_in_time(addresses, there, missing):
    (first, seconds), *_ = called(addresses, there, timeout=1.0)
    assert f"worker {missing} ({addresses[missing]}) did not join within 1 s" in first
    assert len(first.splitlines()) == 2
    assert seconds < 3


def test_different_flags_are_refused_on_all_workers(addresses):
    flags = [{"GPUs": 1, "flags": ["--seed=1", f"--epochs={n}"]} for n in (3, 3, 4)]
    found = called(addresses, [0, 1, 2], flags, late=0.5)
    text = (
        f"worker 2 has the flags --epochs=4, and worker 0 ({addresses[0]}) --epochs=3:\n"
        "start all workers with the same flags."
    )
    assert [error for error, _ in found] == [text] * 3
    assert found[0][1] < 3


def test_a_port_that_is_taken_is_refused_at_once(addresses):
    with socket.create_server(("", int(addresses[1].rpartition(":")[2]))):
        ((error, seconds),) = called(addresses, [1], timeout=60.0)
    assert f"worker 1 ({addresses[1]}) cannot listen on its port: " in error
    assert seconds < 1


def test_an_earlier_chief_that_still_listens_is_not_accepted(addresses):
    """Like a gRPC server, it greets with bytes that are not text."""
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


def test_a_worker_listens_only_on_its_own_address():
    """A program on another address of this host cannot call it."""
    (port,) = free_ports(1)
    worker = Worker((f"127.0.0.2:{port}", f"127.0.0.3:{port}"), 0)
    with _listening(worker) as server:
        assert server.getsockname() == ("127.0.0.2", port)


@pytest.mark.parametrize("host", ["192.0.2.77", "no-such-host.invalid", socket.gethostname()])
def test_a_worker_whose_address_is_not_this_hosts_listens_on_all(host):
    """Such as a router's address, or a name that is a loopback address only on this host."""
    (port,) = free_ports(1)
    with _listening(Worker((f"{host}:{port}", "10.0.0.1:1"), 0)) as server:
        address = server.getsockname()[0]
    assert address == "::" or not address.startswith("127.")


def test_a_port_that_is_taken_on_another_address_is_refused():
    """TensorFlow later listens on all addresses."""
    with socket.create_server(("127.0.0.3", 0)) as other:
        worker = Worker((f"127.0.0.2:{other.getsockname()[1]}", "127.0.0.4:1"), 0)
        with pytest.raises(UserError, match="cannot listen on its port"):
            _listening(worker)


def test_a_chief_that_does_not_know_the_secret_is_not_accepted(addresses):
    """The false chief gets no flags; the worker keeps calling, and names the reason at the end."""
    secrets = (b"the chief's", b"another")
    found = called(addresses[:2], [0, 1], secrets=secrets, timeout=1.0)
    assert f"worker 1 ({addresses[1]}) did not join within 1 s" in found[0][0]
    reason = "the program at its address is not the chief (it does not accept this worker's"
    assert reason in found[1][0]
    assert "a caller from 127.0.0.1 is not a worker (it does not know the secret)" in found[0][0]
    assert all("with the same CRESCENDO_SECRET" in text for text, _ in found)


def test_a_worker_keeps_calling_while_a_stranger_answers(addresses, monkeypatch):
    monkeypatch.setattr("trainer.distributed.rendezvous._PATIENCE", 0.2)
    host, _, port = addresses[0].rpartition(":")
    heard = []

    def strange(server, answers):
        server.settimeout(3)
        with contextlib.suppress(TimeoutError), contextlib.ExitStack() as held:
            for answer in answers:
                call = held.enter_context(server.accept()[0])
                call.sendall(answer)
                heard.append(call.recv(2**16))

    answers = (b"", bytes(2**16), b"\x03" + bytes(32), b"\x02" + bytes(200), b'"go home"\n')
    with (
        socket.create_server((host, int(port))) as server,
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        stranger = pool.submit(strange, server, answers)
        same = ({}, {"flags": ["--data_dir=/of/ours"]})
        ((error, seconds),) = called(addresses[:2], [1], same, 2.0, secrets=(b"", b"ours"))
        stranger.result()
    assert "did not join within 2 s" in error
    assert "the program at its address is not the chief (" in error
    assert len(error.splitlines()) == 2
    assert seconds < 4
    assert len(heard) == len(answers)
    assert not any(b"of/ours" in text for text in heard)
