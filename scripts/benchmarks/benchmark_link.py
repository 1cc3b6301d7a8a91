"""Measures the link between a run's hosts for the cost model, and prints the two flags for `plan`.

Start this program like a run's workers, once on each host, for example by
`srun python scripts/benchmarks/benchmark_link.py`. All need the same CRESCENDO_SECRET, or a file
`secret` of mode 600 in the working folder. Without a cluster (TF_CONFIG, Slurm or Kubernetes), the
program starts two workers with one core each on this machine, and measures their link.

It sums vectors of two lengths over all hosts by TensorFlow's ring, as an update does. A sum over h
hosts takes 2 (h - 1) steps. A step takes the latency, and the time to send 1/h of the bytes.
"""

import argparse
import dataclasses
import os
import pathlib
import statistics
import subprocess
import sys
import time

sys.path.append(str(pathlib.Path(__file__).parents[1]))
from launch_local import environments

from trainer.distributed.worker import Worker
from trainer.system.cores import split_cores

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

_SHORT, _LONG = 256, 8 * 2**20  # Lengths of the vectors, in float32 numbers.
_ROUNDS = 15
_TIMEOUT = 60.0


def _pair() -> int:
    """Runs two workers with one core each on this machine; returns the exit status."""
    processes = []
    for cores, environment in zip(split_cores(2), environments(2), strict=True):
        command = ["taskset", "-c", str(min(cores)), sys.executable, __file__]
        processes.append(subprocess.Popen(command, env=environment))
    return max(process.wait() for process in processes)


def _measure() -> None:
    """Runs one worker of the measurement."""
    from trainer.distributed import shared_secret
    from trainer.distributed.multi_worker import worker_session
    from trainer.distributed.worker import from_environment

    worker = from_environment(_TIMEOUT)
    worker = dataclasses.replace(worker, secret=shared_secret.find(worker, pathlib.Path()))
    with worker_session(worker, _TIMEOUT):
        _sum(worker)


def _sum(worker: Worker) -> None:
    """Sums vectors with the other workers; the chief prints the results."""
    import tensorflow as tf

    from trainer.distributed.multi_worker import create_strategy

    tf.config.threading.set_intra_op_parallelism_threads(1)
    strategy = create_strategy(worker, len(tf.config.list_physical_devices("GPU")), _TIMEOUT)
    hosts, replicas = len(worker.addresses), strategy.num_replicas_in_sync

    def timer(length, sums):
        """Returns a function that measures the seconds of one sum of `length` numbers."""
        vector = tf.constant(1.0, shape=[length])

        def total(after):
            with tf.control_dependencies([after]):
                return tf.distribute.get_replica_context().all_reduce("SUM", tf.identity(vector))[0]

        @tf.function
        def all_sums():
            last = tf.constant(0.0)
            for _ in tf.range(sums):
                tf.autograph.experimental.set_loop_options(parallel_iterations=1)
                totals = strategy.run(total, (last,))
                last = strategy.experimental_local_results(totals)[0]
            return last

        def seconds():
            start = time.perf_counter()
            assert float(all_sums()) == replicas
            return (time.perf_counter() - start) / sums

        seconds()  # The first call traces, and waits for the other workers.
        return seconds

    short, long = timer(_SHORT, 50), timer(_LONG, 3)
    rounds = [(short(), long()) for _ in range(_ROUNDS)]
    if not worker.chief:
        return
    steps = 2 * (hosts - 1)
    for length, times in zip((_SHORT, _LONG), zip(*rounds, strict=True), strict=True):
        low, *_, high = statistics.quantiles([1e3 * seconds for seconds in times], n=10)
        print(
            f"{4 * length:,} bytes summed over {hosts} hosts in "
            f"{1e3 * statistics.median(times):.3g} ms (10% to 90%: {low:.3g} to {high:.3g})"
        )
    few, many = (statistics.median(times) for times in zip(*rounds, strict=True))
    bits = 8 * 4 * (_LONG - _SHORT) * steps / hosts
    print(
        f"--plan_link_bandwidth={bits / (many - few) / 1e9:.3g} "
        f"--plan_link_latency={1e6 * few / steps:.3g}"
    )


if __name__ == "__main__":
    text = argparse.RawDescriptionHelpFormatter
    argparse.ArgumentParser(description=__doc__, formatter_class=text).parse_args()
    named = {"TF_CONFIG", "SLURM_STEP_NUM_TASKS", "KUBERNETES_SERVICE_HOST"} & os.environ.keys()
    sys.exit(_measure() if named else _pair())
