"""Runs N workers of one training on this machine, and all of them again when one was lost.

Called by launch_local.sh, which says how it is used.
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

# A worker that ends so, or by a signal that was not ours, is started again with the others.
AGAIN = (75, 76)


def environments(n: int) -> list[dict[str, str]]:
    """Each worker's; their ports are free ones, and they have a new secret of their own."""
    held = [socket.create_server(("", 0)) for _ in range(n)]
    addresses = [f"localhost:{one.getsockname()[1]}" for one in held]
    for one in held:
        one.close()
    cluster = {"worker": addresses}
    tasks = [{"cluster": cluster, "task": {"type": "worker", "index": i}} for i in range(n)]
    shared = os.environ | {shared_secret.VARIABLE: secrets.token_hex(32)}
    return [shared | {"TF_CONFIG": json.dumps(task)} for task in tasks]


Process = subprocess.Popen[bytes]


def start(index: int, cores: set[int], environment: dict[str, str]) -> tuple[Process, Process]:
    """A worker, and what puts its number before its lines.

    That is no thread of this process, which for `children.start` has to have one alone.
    """
    numbered = ["sed", "-u", f"s/^/[{index}] /"]
    # In a session of its own, so that Ctrl-C does not end it before the worker's last line.
    relay = subprocess.Popen(numbered, stdin=subprocess.PIPE, start_new_session=True)
    arguments = ["train", "--strategy=multi_worker", *sys.argv[2:]]
    worker = child_process.start(arguments, cores, relay.stdin, environment)
    relay.stdin.close()
    return worker, relay


def ended(workers: list[Process], patience: float) -> list[int]:
    """Their exit statuses once all have left; a signal's is negative."""
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
    """How often to start again, and seconds of patience, from the environment.

    Raises:
      UserError: where it has something else.
    """
    restarts, patience = os.environ.get("RESTARTS", "3"), os.environ.get("PATIENCE", "90")
    if not restarts.isdecimal():
        raise UserError(
            f"RESTARTS={restarts} is no number of new starts.\n"
            "Write a whole number, 0 for none, or leave it out for 3."
        )
    try:
        seconds = float(patience)
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:  # NaN is not either.
        raise UserError(
            f"PATIENCE={patience} is no number of seconds.\n"
            "Write a number, 0 or more, or leave it out for 90."
        )
    return int(restarts), seconds


def main() -> int:
    """The exit status: of the workers' the one that no new start mends, else the first but 0."""
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

    for each in stop_signals.asking():
        signal.signal(each, forward)
    for again in range(restarts + 1):
        if again:
            print(f"launch_local: start {again + 1}", file=sys.stderr)
        own = zip(range(n), split_cores(n), environments(n), strict=True)
        workers[:], relays = zip(*(start(*each) for each in own), strict=True)
        if stopped.is_set():  # Meanwhile: they have not heard of it.
            forward()
        statuses = ended(workers, patience)
        for relay in relays:
            relay.wait()
        for index, each in enumerate(statuses):
            if each < 0 and not stopped.is_set():  # It could not say so.
                name = f"signal {-each} ({signal.strsignal(-each)})"
                print(f"launch_local: {name} has ended worker {index}", file=sys.stderr)
        failed = [s for s in statuses if s]
        lasting = [s for s in failed if s > 0 and s not in AGAIN]
        if lasting or not failed or stopped.is_set():
            break
    status = (lasting or failed or [0])[0]
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
