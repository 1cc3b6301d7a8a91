"""Answers of the chief to its callers, and what it logs of them, over real sockets."""

import concurrent.futures
import contextlib
import json
import time

import pytest

from tests.distributed.rendezvous_server_test import OLD, SAME, SECRET, beside, connect
from tests.distributed.rendezvous_test import called
from trainer.distributed import secure_connection
from trainer.distributed.rendezvous import rendezvous
from trainer.distributed.worker import Worker
from trainer.errors import UserError


@pytest.mark.parametrize(("index", "count"), [(0, 2), (2, 2), (99, 2), (2**32 - 1, 2), (1, 3)])
def test_an_authenticated_caller_that_is_not_a_worker_gets_an_error(addresses, index, count):
    def call(address):
        with connect(address) as caller:
            found = secure_connection.call(caller, SECRET, index, count, time.monotonic() + 5)
            found.send(json.dumps({"addresses": list(addresses), **SAME[0]}).encode())
            return json.loads(found.receive(4096))

    message = beside(addresses, call)
    assert message.startswith(f"worker {index} of {count} calls worker 0 (")
    assert len(message.splitlines()) == 2


@pytest.mark.parametrize("text", [b"[" * 100_000, b"{}", b"[]", b"\xff", b"null", b'{"flags": 1}'])
def test_an_authenticated_caller_that_sends_anything_does_no_harm(addresses, text):
    """Without a secret, which workers on loopback may lack, every caller is authenticated."""

    def call(address):
        with connect(address) as caller:
            found = secure_connection.call(caller, b"", 1, 2, time.monotonic() + 5)
            found.send(text)

    beside(addresses, call, secret=b"")


def test_a_restarted_worker_replaces_its_old_process(addresses):
    """The chief may still hold the old process's connection, and sends it a message."""
    with contextlib.ExitStack() as held:

        def call(address):
            caller = held.enter_context(connect(address))
            before = secure_connection.call(caller, SECRET, 1, 3, time.monotonic() + 5)
            greeting = {"addresses": [*addresses, "localhost:1"], **SAME[0]}
            before.send(json.dumps(greeting).encode())
            return before

        three = (*addresses, "localhost:1")
        with concurrent.futures.ThreadPoolExecutor() as pool:
            chief = pool.submit(called, three, [0], SAME, 5.0, secrets=(SECRET,))
            before = call(three[0])
            time.sleep(0.1)
            again = [pool.submit(rendezvous, Worker(three, 1, SECRET), SAME[0], 5.0)]
            message = json.loads(before.receive(4096, time.monotonic() + 5))
            # Worker 2 starts only now, because the rendezvous ends when it arrives.
            again.append(pool.submit(rendezvous, Worker(three, 2, SECRET), SAME[0], 5.0))
            lines = [each.result()[0] for each in again]
            for index, each in enumerate(lines, 1):
                each.send(b"%d" % index)
            for each in lines:
                assert each.receive(9, time.monotonic() + 5) == b"0"
        assert chief.result()[0][0] == {1, 2}
    assert message.startswith("another process has called worker 0 (")


def test_an_older_worker_is_told_about_the_version(addresses):
    """Version 1 reads a line of JSON, and reports it as its error."""

    def call(address):
        with connect(address) as older:
            older.sendall(json.dumps(OLD).encode() + b"\n")
            return json.loads(older.makefile("rb").readline())

    message = beside(addresses, call)
    assert "newer version of Crescendo:\n" in message


def test_strangers_are_logged_once(addresses, caplog):
    def call(address):
        for _ in range(20):
            connect(address).close()

    beside(addresses, call)
    assert [record.message.partition(" is not")[0] for record in caplog.records] == [
        "a caller from 127.0.0.1"
    ]


def test_callers_are_named_if_a_worker_does_not_arrive(addresses):
    """Most such callers are workers with another secret or another number of workers."""

    def call(index, count, secret):
        with connect(addresses[0]) as caller, contextlib.suppress(OSError):
            found = secure_connection.call(caller, secret, index, count, time.monotonic() + 5)
            found.send(json.dumps({"addresses": [], "flags": []}).encode())
            found.receive(4096)

    with concurrent.futures.ThreadPoolExecutor() as pool:
        chief = pool.submit(called, addresses, [0], SAME, 1.0, secrets=(SECRET,))
        call(1, 2, b"another")
        call(2, 3, SECRET)
    what, remedy = chief.result()[0][0].splitlines()
    assert f"ends: worker 2 of 3 calls worker 0 ({addresses[0]}), the chief of 2" in what
    assert "with the same CRESCENDO_SECRET" in remedy


def test_a_refusal_reaches_only_callers_that_know_the_secret(addresses):
    with (
        connect_async(addresses[0]) as stranger,
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        chief = pool.submit(called, addresses, [0], SAME, 5.0, secrets=(SECRET,))
        time.sleep(0.3)
        with pytest.raises(UserError, match="--data_dir=/of/ours"):
            rendezvous(Worker(addresses, 1, SECRET), {"flags": ["--data_dir=/of/others"]}, 5.0)
        assert "--data_dir=/of/others" in chief.result()[0][0]
        assert stranger.result() == b""


@contextlib.contextmanager
def connect_async(address):
    """Yields the future answer to a stranger that calls at once and sends the first bytes."""

    def hear():
        with connect(address) as stranger, contextlib.suppress(OSError):
            stranger.sendall(secure_connection.hello(1, 2))
            stranger.recv(secure_connection.ANSWER.size)
            return stranger.recv(4096)
        return b""

    with concurrent.futures.ThreadPoolExecutor() as pool:
        yield pool.submit(hear)
