"""A process leaves a `worker_session`, or loses the other worker, in a process of its own."""

import json
import os
import select
import signal
import subprocess
import sys
import time

import pytest

from tests.distributed.rendezvous_test import free_ports
from trainer.distributed.rendezvous import rendezvous
from trainer.distributed.worker import Worker
from trainer.errors import LostWorkerError

# Imports once, and makes a chief of a fork for each line. A chief takes longer to exit than a
# process may after it has lost a worker.
CHIEFS = """
import json, os, sys, time
from trainer.distributed.multi_worker import worker_session
from trainer.distributed.worker import Worker

for line in sys.stdin:
    does, addresses = json.loads(line)
    child = os.fork()
    if child == 0:
        try:
            with worker_session(Worker(tuple(addresses), 0), 4.0):
                exec(does)
        finally:
            time.sleep(2)
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.fixture(scope="module")
def chiefs():
    """A process that makes chiefs, and prints how each of them ends."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = [sys.executable, "-c", CHIEFS]
    with subprocess.Popen(command, text=True, start_new_session=True, **pipes) as process:
        yield process
        os.killpg(process.pid, signal.SIGKILL)  # A chief may hang.


@pytest.mark.parametrize(
    ("does", "status"),
    [("pass", 0), ("raise SystemExit(5)", 5), ("time.sleep(60)", LostWorkerError.status)],
)
def test_a_process_that_is_exiting_ignores_the_others_end(chiefs, does, status):
    addresses = tuple(f"localhost:{port}" for port in free_ports(2))
    print(json.dumps([does, addresses]), file=chiefs.stdin, flush=True)
    (line,) = rendezvous(Worker(addresses, 1), {"GPUs": 0, "flags": []}, 60.0).values()
    time.sleep(0.5)
    line.close()
    assert select.select([chiefs.stdout], [], [], 30)[0]
    assert int(chiefs.stdout.readline()) == status
