"""A process leaves a `worker_session`, or loses the other worker, in a process of its own."""

import subprocess
import sys
import time

import pytest

from tests.distributed.rendezvous_test import free_ports
from trainer.distributed.rendezvous import rendezvous
from trainer.distributed.worker import Worker
from trainer.errors import LostWorkerError

# The chief's program. It takes longer to exit than a process may after it has lost a worker.
CHIEF = """
import sys, time
from trainer.distributed.multi_worker import worker_session
from trainer.distributed.worker import Worker

try:
    with worker_session(Worker(tuple(sys.argv[2:]), 0), 4.0):
        exec(sys.argv[1])
finally:
    time.sleep(2)
"""


@pytest.mark.parametrize(
    ("does", "status"),
    [("pass", 0), ("raise SystemExit(5)", 5), ("time.sleep(60)", LostWorkerError.status)],
)
def test_a_process_that_is_exiting_ignores_the_others_end(does, status):
    addresses = tuple(f"localhost:{port}" for port in free_ports(2))
    chief = subprocess.Popen([sys.executable, "-c", CHIEF, does, *addresses])
    (line,) = rendezvous(Worker(addresses, 1), {"GPUs": 0, "flags": []}, 60.0).values()
    time.sleep(0.5)
    line.close()
    assert chief.wait(30) == status
