"""Runs N workers of one training on this machine, and restarts all of them if one is lost.

launch_local.sh calls this program and documents its usage.
"""

import json
import math
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time

from trainer.distributed import shared_secret
from trainer.errors import UserError
from trainer.system import child_process, output, stop_signals
from trainer.system.cores import split_cores

# All workers start again if another program's signal ended a worker, or if a worker ended with one
# of these statuses: it was stopped and should resume (75), or it lost another worker (76).
RESTART_STATUSES = (75, 76)


def environments(n: int) -> list[dict[str, str]]:
    """Returns the environment of each worker, with free ports and a new shared secret."""
    sockets = [socket.create_server(("", 0)) for _ in range(n)]
    addresses = [f"localhost:{server.getsockname()[1]}" for server in sockets]
    for server in sockets:
        server.close()
    cluster = {"worker": addresses}
    tasks = [{"cluster": cluster, "task": {"type": "worker", "index": i}} for i in range(n)]
    shared = os.environ | {shared_secret.VARIABLE: secrets.token_hex(32)}
    return [shared | {"TF_CONFIG": json.dumps(task)} for task in tasks]


Process = subprocess.Popen[bytes]


def start(index: int, cores: set[int], environment: dict[str, str]) -> tuple[Process, Process]:
    """Starts a worker, and a relay: a process that puts the worker's number before each line.

    The relay cannot be a thread, because `child_process.start` requires a process with one thread.
    """
    prefix = ["sed", "-u", f"s/^/[{index}] /"]
    # The relay has a session of its own, so that Ctrl-C does not end it before the worker.
    relay = subprocess.Popen(prefix, stdin=subprocess.PIPE, start_new_session=True)
    arguments = ["train", "--strategy=multi_worker", *sys.argv[2:]]
    worker = child_process.start(arguments, cores, relay.stdin, environment)
    relay.stdin.close()
    return worker, relay


def wait_for_all(workers: list[Process], patience: float) -> list[int]:
    """Waits for all workers; returns their exit statuses, or −n for signal n.

    Workers that still run `patience` seconds after the first failure are killed.
    """
    deadline = float("inf")
    while None in (statuses := [worker.poll() for worker in workers]):
        if any(statuses) and deadline == float("inf"):
            deadline = time.monotonic() + patience
        if time.monotonic() > deadline:
            for worker in workers:
                worker.kill()
        time.sleep(0.1)
    return statuses


def limits() -> tuple[int, float]:
    """Returns the number of restarts and the seconds of patience, from the environment.

    Raises:
      UserError: if a value is negative or not a number.
    """
    restarts, patience = os.environ.get("RESTARTS", "3"), os.environ.get("PATIENCE", "90")
    if not restarts.isdecimal():
        raise UserError(
            f"RESTARTS={restarts} is not a number of restarts.\n"
            "Write a whole number, 0 for none, or leave it out for 3."
        )
    try:
        seconds = float(patience)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:  # This also refuses NaN.
        raise UserError(
            f"PATIENCE={patience} is not a number of seconds.\n"
            "Write a number, 0 or more, or leave it out for 90."
        )
    return int(restarts), seconds


def main() -> int:
    """Runs the workers; returns a status that a restart cannot fix, or else the first failure."""
    if len(sys.argv) < 2 or not sys.argv[1].isdigit() or sys.argv[1] == "0":
        print("usage: scripts/launch_local.sh N --flag=value ...", file=sys.stderr)
        return 2
    output.open_closed_streams()
    output.protect(training=True)
    n = int(sys.argv[1])
    try:
        restarts, patience = limits()
    except UserError as error:
        print(f"launch_local: {error}", file=sys.stderr)
        return 2
    workers: list[Process] = []
    stopped = threading.Event()

    def forward(number: int = signal.SIGTERM, _: object = None) -> None:
        if stop_signals.is_repeated_hangup(number, stopped.is_set()):
            return
        stopped.set()
        for worker in workers:
            worker.terminate()

    for number in stop_signals.asking():
        signal.signal(number, forward)
    for restart in range(restarts + 1):
        if restart:
            print(f"launch_local: start {restart + 1}", file=sys.stderr)
        arguments = zip(range(n), split_cores(n), environments(n), strict=True)
        workers[:], relays = zip(*(start(*each) for each in arguments), strict=True)
        if stopped.is_set():  # A signal that came before these workers started did not reach them.
            forward()
        statuses = wait_for_all(workers, patience)
        for relay in relays:
            relay.wait()
        for index, status in enumerate(statuses):
            if status < 0 and not stopped.is_set():  # A killed worker prints no message.
                name = f"signal {-status} ({signal.strsignal(-status)})"
                print(f"launch_local: {name} has ended worker {index}", file=sys.stderr)
        failed = [s for s in statuses if s]
        lasting = [s for s in failed if s > 0 and s not in RESTART_STATUSES]
        if lasting or not failed or stopped.is_set():
            break
    status = (lasting or failed or [0])[0]
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
