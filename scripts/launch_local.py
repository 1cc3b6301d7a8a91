"""Runs the workers of one training on this machine, and restarts all of them if one is lost.

Their number is fixed, or follows the batch (--workers).

launch_local.sh calls this program and documents its usage.
"""

import json
import math
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from trainer.distributed import shared_secret
from trainer.errors import ExitStatus, UserError
from trainer.run_dir import wanted_workers
from trainer.system import child_process, output, stop_signals
from trainer.system.cores import split_cores

# All workers start again if another program's signal ended a worker, or if a worker ended with one
# of these statuses: it was stopped and should resume (75), it lost another worker (76), or the run
# should go on with another number of workers (77).
CHANGE = ExitStatus.OTHER_WORKERS
RESTART_STATUSES = (ExitStatus.STOPPED, ExitStatus.LOST_WORKER, CHANGE)
USAGE = """usage: scripts/launch_local.sh N --flag=value ...
       scripts/launch_local.sh A:B --flag=value ...     without --workers among the flags"""


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


def start(
    flags: Sequence[str], index: int, cores: set[int], environment: dict[str, str]
) -> tuple[Process, Process]:
    """Starts a worker, and a relay: a process that puts the worker's number before each line.

    The relay cannot be a thread, because `child_process.start` requires a process with one thread.
    """
    prefix = ["sed", "-u", f"s/^/[{index}] /"]
    # The relay has a session of its own, so that Ctrl-C does not end it before the worker.
    relay = subprocess.Popen(prefix, stdin=subprocess.PIPE, start_new_session=True)
    worker = child_process.start(["train", *flags], cores, relay.stdin, environment)
    relay.stdin.close()
    return worker, relay


def wait_for_all(workers: list[Process], patience: float) -> list[int]:
    """Waits for all workers; returns their exit statuses, or −n for signal n.

    Workers that still run `patience` seconds after the first failure are killed. A change of the
    number of workers is not a failure: the first worker may still copy the run to its bucket.
    """
    deadline = float("inf")
    while None in (statuses := [worker.poll() for worker in workers]):
        if any(s not in (None, 0, CHANGE) for s in statuses) and deadline == float("inf"):
            deadline = time.monotonic() + patience
        if time.monotonic() > deadline:
            for worker in workers:
                worker.kill()
        time.sleep(0.1)
    return statuses


def report_killed(statuses: Sequence[int]) -> None:
    """Prints which workers were killed, because a killed worker prints no message."""
    for index, status in enumerate(statuses):
        if status < 0:
            name = f"signal {-status} ({signal.strsignal(-status)})"
            print(f"launch_local: {name} has ended worker {index}", file=sys.stderr)


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


def asked(arguments: Sequence[str]) -> tuple[int, list[str]] | None:
    """Returns the largest number of workers, and the flags of train; None for wrong arguments."""
    found = re.fullmatch(r"(?:[1-9]\d*:)?([1-9]\d{0,4})", arguments[0]) if arguments else None
    if found is None:
        return None
    first, *flags = arguments
    elastic = [f"--workers={first}"] if ":" in first else []
    if elastic and any(re.match("--?workers(=|$)", flag) for flag in flags):
        return None
    return int(found[1]), ["--strategy=multi_worker", *flags, *elastic]


def next_start(flags: Sequence[str], most: int) -> tuple[int, list[str]]:
    """Returns the number of workers to start, and the flags that tell them how many there may be.

    Ends this process if `most` is below all numbers of --workers.
    """
    if wanted_workers.elastic_config(flags) is None:
        return most, []
    # A process of its own, because a client of a bucket has threads, which `start` cannot have.
    command = [sys.executable, "-m", "trainer.run_dir.wanted_workers", str(most), *flags]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        sys.exit(done.returncode)
    workers, numbers = done.stdout.split()
    return int(workers), [f"--workers={numbers}"]


def summary(runs: Sequence[tuple[int, float]]) -> str:
    """Returns a text about the runs of the workers: pairs (number of workers, seconds)."""
    parts = ", ".join(f"{workers} for {seconds:.0f} s" for workers, seconds in runs)
    total = sum(workers * seconds for workers, seconds in runs)
    return f"workers: {parts}; {total:.0f} worker-seconds"


def main() -> int:
    """Runs the workers; returns a status that a restart cannot fix, or else the first failure."""
    if (found := asked(sys.argv[1:])) is None:
        print(USAGE, file=sys.stderr)
        return ExitStatus.USER_ERROR
    output.open_closed_streams()
    output.protect(training=True)
    most, flags = found
    try:
        restarts, patience = limits()
        first = next_start(flags, most)
    except UserError as error:
        print(f"launch_local: {error}", file=sys.stderr)
        return error.status
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
    runs: list[tuple[int, float]] = []
    n, own = first
    while True:
        if runs:
            print(f"launch_local: start {len(runs) + 1}", file=sys.stderr)
        begin = time.monotonic()
        arguments = zip(range(n), split_cores(n), environments(n), strict=True)
        workers[:], relays = zip(*(start([*flags, *own], *each) for each in arguments), strict=True)
        if stopped.is_set():  # A signal that came before these workers started did not reach them.
            forward()
        statuses = wait_for_all(workers, patience)
        runs.append((n, time.monotonic() - begin))
        for relay in relays:
            relay.wait()
        if not stopped.is_set():
            report_killed(statuses)
        failed = [s for s in statuses if s]
        lasting = [s for s in failed if s > 0 and s not in RESTART_STATUSES]
        if lasting or not failed or stopped.is_set():
            break
        before = n
        n, own = next_start(flags, most)
        restarts -= {*failed} != {CHANGE} or n == before
        if restarts < 0:
            break
    if own:
        print(f"launch_local: {summary(runs)}", file=sys.stderr)
    status = (lasting or failed or [0])[0]
    if status == CHANGE and stopped.is_set():
        status = ExitStatus.STOPPED
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
