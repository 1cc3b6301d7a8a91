"""Strangers call the chief's port over real sockets while a worker calls it too."""

import concurrent.futures
import contextlib
import json
import socket
import struct
import subprocess
import sys
import threading
import time

import pytest

from tests.distributed.rendezvous_test import called
from trainer.distributed import secure_connection
from trainer.distributed.rendezvous import rendezvous
from trainer.distributed.worker import Worker

SECRET = b"of this run, and of no other one"
SAME = ({"flags": ["--data_dir=/of/ours"]},) * 3


def connect(address):
    """Connects to a chief, and retries while it starts."""
    host, _, port = address.rpartition(":")
    for _ in range(100):
        with contextlib.suppress(OSError):
            return socket.create_connection((host, int(port)), timeout=5)
        time.sleep(0.05)
    raise TimeoutError


def beside(addresses, stranger, secret=SECRET, timeout=5.0):
    """Checks that chief and worker meet if `stranger(address)` calls first; returns its result."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        chief = pool.submit(called, addresses, [0], SAME, timeout, secrets=(secret,))
        heard = stranger(addresses[0])
        time.sleep(0.1)
        worker = pool.submit(called, addresses, [1], SAME, timeout, secrets=(secret,) * 2)
        ((at_chief, seconds),), ((at_worker, _),) = chief.result(), worker.result()
    assert (at_chief, at_worker) == ({1}, {0})
    assert seconds < timeout
    return heard


OLD = {"index": 1, "addresses": ["a", "b"], "GPUs": 0, "flags": ["--forged"]}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"GET / HTTP/1.1\r\n\r\n",
        b"{}\n",
        json.dumps(OLD).encode() + b"\n",
        json.dumps(OLD | {"index": 0}).encode() + b"\n",
        b"[" * 100_000 + b"\n",
        b"{" * 100_000,
        b"\x02" + b"[" * 100_000,
        b"\x02" + bytes(40) + bytes(32),
        secure_connection.hello(1, 2)[:20],
        secure_connection.hello(1, 2),
        secure_connection.hello(99, 2) + bytes(32),
        b"\x03" + bytes(100),
        bytes(2**16),
    ],
    ids=map(str, range(14)),
)
def test_a_strangers_call_does_no_harm_and_learns_nothing(addresses, text):
    def call(address):
        with connect(address) as stranger, contextlib.suppress(OSError):
            stranger.sendall(text)
            stranger.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: stranger.recv(4096), b""))
        return b""

    assert b"ours" not in beside(addresses, call)


def test_silent_and_slow_callers_delay_nobody(addresses):
    with contextlib.ExitStack() as held:

        def call(address):
            strangers = [held.enter_context(connect(address)) for _ in range(9)]

            def drip():
                with contextlib.suppress(OSError):
                    for byte in secure_connection.hello(1, 2) + bytes(32):
                        strangers[0].sendall(bytes([byte]))
                        time.sleep(0.1)

            threading.Thread(target=drip, daemon=True).start()

        beside(addresses, call, timeout=2.0)


def test_five_hundred_callers_do_not_block_the_worker(addresses):
    with contextlib.ExitStack() as held:
        beside(
            addresses,
            lambda address: [held.enter_context(connect(address)) for _ in range(500)],
        )


def test_a_flood_from_one_host_drops_its_own_callers(addresses):
    host, _, port = addresses[0].rpartition(":")
    with contextlib.ExitStack() as held:

        def call(address):
            held.enter_context(connect(address))
            other = socket.create_connection((host, int(port)), 5, ("127.0.0.2", 0))
            held.enter_context(other)
            for _ in range(500):
                held.enter_context(connect(address))
            first = secure_connection.hello(9, 2)
            other.sendall(first)
            transcript = first + other.recv(secure_connection.ANSWER.size)
            other.sendall(secure_connection.proof(SECRET, transcript, chief=False))
            assert len(other.recv(secure_connection.PROOF_BYTES)) == secure_connection.PROOF_BYTES

        beside(addresses, call)


def test_a_chief_with_few_file_descriptors_still_meets_its_worker(addresses):
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40));"
        "from trainer.distributed.rendezvous import rendezvous;"
        "from trainer.distributed.worker import Worker;"
        "print(*rendezvous(Worker((sys.argv[1], sys.argv[2]), 0), {}, 5.0))"
    )
    command = [sys.executable, "-c", program, *addresses]
    with (
        contextlib.ExitStack() as held,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as chief,
    ):
        for _ in range(60):
            held.enter_context(connect(addresses[0]))
        (own,) = rendezvous(Worker(addresses, 1), {}, 5.0).values()
        own.close()
        assert chief.communicate(timeout=10)[0] == "1\n"


def test_callers_that_hang_up_in_a_handshake_do_no_harm(addresses):
    def call(address):
        for size in (0, 1, 20, 41):
            with connect(address) as stranger:
                stranger.sendall(secure_connection.hello(1, 2)[:size])
                # This resets the connection instead of closing it.
                stranger.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    beside(addresses, call)


def test_a_recorded_call_cannot_be_replayed(addresses):
    """The chief uses a new nonce for each connection."""
    first = secure_connection.hello(1, 2)
    transcript = first + secure_connection.answer()
    recorded = first + secure_connection.proof(SECRET, transcript, chief=False)

    def call(address):
        with connect(address) as stranger:
            stranger.sendall(recorded)
            assert len(stranger.recv(4096)) == secure_connection.ANSWER.size
            with contextlib.suppress(ConnectionError):
                assert stranger.recv(4096) == b""

    beside(addresses, call)


def test_the_chiefs_bytes_cannot_be_reflected(addresses):
    """The chief's proof differs from a caller's proof for the same bytes."""

    def call(address):
        with connect(address) as stranger:
            first = secure_connection.hello(1, 2)
            stranger.sendall(first)
            transcript = first + stranger.recv(4096)
            stranger.sendall(secure_connection.proof(SECRET, transcript, chief=True))
            with contextlib.suppress(ConnectionError):
                assert stranger.recv(4096) == b""

    beside(addresses, call)
