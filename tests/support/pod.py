"""A slice of several hosts on CPUs: real servers on loopback, driven by the real program.

Five things differ from a run on TPUs. A server has two CPUs as its devices. A strategy over all of
these takes the place of TPUStrategy, which needs TPUs: TensorFlow's MirroredStrategy, which refuses
the devices of several hosts unless its check is replaced. The TPU system is not initialized. A host
writes the first position and a digest of each training micro-batch that it makes to MADE. If a host
is lost, the program waits 2 s for TensorFlow's own error, and not 10 s.

    python -m tests.support.pod host PORT
    python -m tests.support.pod train --strategy=tpu --tpu=127.0.0.1:PORT,... --flag=value ...
"""

import contextlib
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import time

from tests.support import ports

DEVICES = 2  # Of each host.
MADE = "made.jsonl"
_ROOT = pathlib.Path(__file__).parents[2]


@contextlib.contextmanager
def hosts(*folders):
    """Starts a host in each folder; yields the processes, and the value of --tpu."""
    processes = []
    try:
        numbers = [ports.host_port() for _ in folders]
        for folder, port in zip(folders, numbers, strict=True):
            with open(folder / "host.log", "w") as log:
                processes.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "tests.support.pod", "host", str(port)],
                        stdout=log,
                        stderr=log,
                        cwd=folder,
                        env=_environment(),
                    )
                )
        for folder, process in zip(folders, processes, strict=True):
            wait_for(folder / "host.log", "this host serves", process)
        yield processes, ",".join(f"127.0.0.1:{port}" for port in numbers)
    finally:
        for process in processes:
            process.kill()
            process.wait()


def start(addresses, folder, *arguments):
    """Starts the program, which drives the hosts, in `folder`; its output goes to program.log."""
    own = ["--strategy=tpu", f"--tpu={addresses}", "--precision=float32"]
    with open(folder / "program.log", "w") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.support.pod", "train", *own, *map(str, arguments)],
            stdout=log,
            stderr=log,
            cwd=folder,
            env=_environment(),
        )


def train(addresses, folder, *arguments, status=0):
    """Runs the program to its end; returns the lines of its output."""
    process = start(addresses, folder, *arguments)
    process.wait(timeout=400)
    output = (folder / "program.log").read_text()
    assert process.returncode == status, output
    return output.splitlines()


def wait_for(log, text, process):
    """Waits until the file `log` contains `text`."""
    for _ in range(1200):
        if text in log.read_text():
            return
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)
    raise AssertionError(f"{text} is missing in {log.read_text()}")


def made(folder):
    """The first position and the digest of each training micro-batch that a host made."""
    return [json.loads(line) for line in (folder / MADE).read_text().splitlines()]


def digest(*arrays):
    """A digest of arrays."""
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()


def _environment():
    return {**os.environ, "PYTHONPATH": str(_ROOT), "CUDA_VISIBLE_DEVICES": "-1"}


def _serve(port):
    import tensorflow as tf

    from scripts.tpu import tpu_host
    from trainer.training.host import HostService

    real, config = tf.distribute.Server, tf.compat.v1.ConfigProto(device_count={"CPU": DEVICES})
    tf.distribute.Server = lambda *args, **options: real(*args, **options, config=config)
    make = HostService.make

    def recorded(self, request, number):
        arrays = make(self, request, number)
        if json.loads(request)["make"] == "training":
            *values, first = arrays
            with open(MADE, "a") as file:
                file.write(json.dumps([int(first), digest(*values)]) + "\n")
        return arrays

    HostService.make = recorded
    tpu_host.main(port)


def _drive():
    import tensorflow as tf
    from tensorflow.python.distribute import mirrored_strategy

    from trainer.distributed import host_monitor
    from trainer.main import entry

    class Strategy(tf.distribute.MirroredStrategy):
        def __init__(self, resolver):
            count = len(resolver.cluster_spec().job_tasks("worker"))
            names = [
                f"/job:worker/replica:0/task:{task}/device:CPU:{device}"
                for task in range(count)
                for device in range(DEVICES)
            ]
            super().__init__(names, tf.distribute.ReductionToOneDevice())

    mirrored_strategy._is_device_list_single_worker = lambda _: True
    tf.distribute.TPUStrategy = Strategy
    tf.tpu.experimental.initialize_tpu_system = lambda _: None
    host_monitor._GRACE = 2.0
    sys.argv[0] = "trainer"
    entry()


if __name__ == "__main__":
    if sys.argv[1] == "host":
        _serve(int(sys.argv[2]))
    else:
        _drive()
