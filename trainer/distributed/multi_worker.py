"""Strategy over several processes; if one of them is lost, the others end in bounded time."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import tensorflow as tf
from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
from tensorflow.python.eager import context

from trainer.distributed.heartbeat import Heartbeat
from trainer.distributed.rendezvous import rendezvous
from trainer.distributed.worker import Worker
from trainer.errors import LostWorkerError
from trainer.system.tensorflow_errors import translate

# Fractions of the timeout: silence that counts as a loss, and then time for an orderly exit.
_SILENCE, _GRACE = 0.6, 0.15
# Multiple of the timeout after which TensorFlow's own monitor ends the process without a message.
_LATER = 10
# Text in an error that TensorFlow's server passes on from a worker, or from any other program.
_REPORTED = "Error reported from /job:"
# Text and classes of the errors of a collective that is cut off from the other workers.
_ABORTED = "Collective ops is aborted by: "
_CUT = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.UnavailableError,
)


@contextlib.contextmanager
def worker_session(
    worker: Worker | None, timeout: float, flags: Sequence[str] = ()
) -> Iterator[Callable[[str], list[str]]]:
    """Connects to the other workers of the run, and monitors them until all are done.

    If another worker is lost, this process ends within `timeout` seconds of that worker's last sign
    of life. A LostWorkerError replaces TensorFlow's error. If a collective still waits, the monitor
    ends the process with the same message and status. If the block raises another error, the other
    workers count this one as lost.

    Args:
      worker: this process; None if there is no other worker.
      timeout: seconds to wait for another worker.
      flags: command-line flags that must be the same in all workers.

    Yields:
      A function that sends this worker's text, and returns the texts of all workers, by index.

    Raises:
      LostWorkerError: if another worker does not arrive, dies or hangs.
      UserError: if another worker has other flags or addresses, or this worker's port is taken.
    """
    if worker is None:
        yield lambda text: [text]
        return
    gpus = len(tf.config.list_physical_devices("GPU"))
    lost = _Lost(worker, timeout * _GRACE)
    same = {"GPUs": gpus, "flags": list(flags)}
    lines, done = rendezvous(worker, same, timeout), False
    heartbeat = Heartbeat(lines, timeout * _SILENCE, lost.note)
    try:
        with translate(lambda error: lost.error(error, timeout)):
            yield heartbeat.exchange
        done = True
    finally:
        # Other workers may fail with the same error; losing them no longer ends this process.
        heartbeat.leave(done)


def _reason(error: tf.errors.OpError) -> str:
    """Returns the reported error, which is in one line of TensorFlow's long message."""
    line = next(line for line in str(error).splitlines() if _REPORTED in line or _ABORTED in line)
    return line.rpartition(_ABORTED)[2][:300].strip().rstrip(".")


class _Lost:
    """Ends this process after the loss of a worker, if the process does not end by itself."""

    def __init__(self, worker: Worker, grace: float) -> None:
        self.message = ""
        self._worker, self._grace = worker, grace
        self._known, self._taken = threading.Event(), threading.Event()

    def note(self, index: int) -> None:
        """Ends this process, which lost worker `index`; prints why, unless `known` was called."""
        what = f"has lost {self._worker.name(index)}"
        if index == self._worker.index:  # The others count this one as lost: it may have paused.
            what = "was silent for too long, and the others have left"
        self.message = (
            f"{self._worker} {what}.\nStart all workers again: they go on from the last checkpoint."
        )
        self._known.set()
        if not self._taken.wait(self._grace):
            print(f"crescendo train: {self.message}", file=sys.stderr, flush=True)
            os._exit(LostWorkerError.status)
        # Meanwhile the process may finish a checkpoint.
        time.sleep(self._grace)
        os._exit(LostWorkerError.status)

    def error(self, error: tf.errors.OpError, timeout: float) -> LostWorkerError | None:
        """Returns a LostWorkerError if a lost or cut-off worker caused `error`, or else None."""
        # TensorFlow may notice the loss before the heartbeat does.
        if "ollective" in str(error) and self.known(timeout):
            return LostWorkerError(self.message)
        if _REPORTED in str(error) or (isinstance(error, _CUT) and _ABORTED in str(error)):
            return LostWorkerError(
                f"{self._worker} was cut off from the others by TensorFlow: {_reason(error)}.\n"
                "Start all workers again, where no other program can reach their ports "
                "(docs/clusters.md)."
            )
        return None

    def known(self, seconds: float) -> bool:
        """Waits `seconds` for a loss; returns whether there is one; the caller reports it."""
        found = self._known.wait(seconds)
        self._taken.set()
        return found


def create_strategy(worker: Worker, gpus: int, timeout: float) -> tf.distribute.Strategy:
    """Returns the strategy over all workers, with a replica on each GPU, or else on each CPU.

    Args:
      worker: this process, after the rendezvous.
      gpus: number of GPUs of each worker.
      timeout: seconds to wait for the other workers.

    Raises:
      LostWorkerError: if another worker has left since the rendezvous.
    """
    workers = tf.train.ClusterSpec({"worker": worker.addresses})
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        workers,
        task_type="worker",
        task_id=worker.index,
        num_accelerators={"GPU": gpus},
        rpc_layer="grpc",
    )
    # The strategy's own configuration of this service has other timeouts, and no option for them.
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader="/job:worker/replica:0/task:0",
        cluster_register_timeout_in_ms=int(1000 * timeout),
        heartbeat_timeout_in_ms=int(_LATER * 1000 * timeout),
        coordinated_jobs=[
            coordination_config_pb2.CoordinatedJob(name="worker", num_tasks=len(worker.addresses))
        ],
    )
    communication = tf.distribute.experimental.CommunicationImplementation
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=communication.AUTO if gpus else communication.RING
    )
    handler = signal.getsignal(signal.SIGTERM)
    # If a worker has died in the 0.1 s since the rendezvous, TensorFlow waits forever, and Python's
    # threads do not run. So the kernel ends this process by SIGALRM after `timeout` seconds.
    signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(resolver, options)
    except tf.errors.OpError as error:
        reason = str(error).splitlines()[0]
        raise LostWorkerError(
            f"{worker} cannot join the others: {reason}.\nStart all workers again."
        ) from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        # TensorFlow has set its own SIGTERM handler, whose preemption notices are not used here.
        signal.signal(signal.SIGTERM, handler)
