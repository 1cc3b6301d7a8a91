"""The strategy over several processes, whose loss ends the others in bounded time."""

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

# Fractions of the timeout: the silence that counts as loss, and the time to leave without force.
_SILENCE, _GRACE = 0.6, 0.15
# Multiple of the timeout after which TensorFlow's own monitor ends the process without a message.
_LATER = 10
# Text in an error that TensorFlow's servers report, of each other or of any program.
_REPORTED = "Error reported from /job:"
# Text and kinds of a collective's errors if it is cut off from the other workers.
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
    """Meets the other workers of the run, and monitors them until all are done.

    If another worker is lost, this process ends within `timeout` seconds of its last sign of life:
    by a LostWorkerError in place of TensorFlow's error, or, if a collective still waits, by the
    monitor itself, with the same message and status. If this process raises another error, the
    others lose it.

    Args:
      worker: this process; None if there is no other worker.
      timeout: seconds.
      flags: must be the same in all workers.

    Yields:
      The exchange of texts: returns the text of each worker, by index.

    Raises:
      LostWorkerError: if another worker does not arrive, dies or hangs.
      UserError: if another worker is of another run, or this worker's port is taken.
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
        # From here on the loss of another worker, which may fail alike, does not end this process.
        heartbeat.leave(done)


def _reason(error: tf.errors.OpError) -> str:
    """Returns the line of a long message that has the reported error."""
    line = next(line for line in str(error).splitlines() if _REPORTED in line or _ABORTED in line)
    return line.rpartition(_ABORTED)[2][:300].strip().rstrip(".")


class _Lost:
    """The lost worker; its loss ends this process if the process does not end by itself."""

    def __init__(self, worker: Worker, grace: float) -> None:
        self.message = ""
        self._worker, self._grace = worker, grace
        self._known, self._taken = threading.Event(), threading.Event()

    def note(self, index: int) -> None:
        """Ends this process with a message, unless it has asked for the loss by `known`."""
        what = f"has lost {self._worker.name(index)}"
        if index == self._worker.index:  # The others have lost this one; it may have been stopped.
            what = "was silent for too long, and the others have left"
        self.message = (
            f"{self._worker} {what}.\nStart all workers again: they go on from the last checkpoint."
        )
        self._known.set()
        if not self._taken.wait(self._grace):
            print(f"crescendo train: {self.message}", file=sys.stderr, flush=True)
            os._exit(LostWorkerError.status)
        # The process may still finish a checkpoint.
        time.sleep(self._grace)
        os._exit(LostWorkerError.status)

    def error(self, error: tf.errors.OpError, timeout: float) -> LostWorkerError | None:
        """Returns the error of a lost worker, or of this one cut off, if it caused TensorFlow's."""
        # TensorFlow may know of the loss before the heartbeat does.
        if "ollective" in str(error) and self.known(timeout):
            return LostWorkerError(self.message)
        if _REPORTED in str(error) or (isinstance(error, _CUT) and _ABORTED in str(error)):
            return LostWorkerError(
                f"{self._worker} was cut off from the others by TensorFlow: {_reason(error)}.\n"
                "Start all workers again, where no other program can call their ports "
                "(docs/clusters.md)."
            )
        return None

    def known(self, seconds: float) -> bool:
        """Returns whether a worker is lost, waiting `seconds` to know; then the caller says so."""
        found = self._known.wait(seconds)
        self._taken.set()
        return found


def create_strategy(worker: Worker, gpus: int, timeout: float) -> tf.distribute.Strategy:
    """Returns the strategy with a replica on each GPU, or on the CPU, of all workers.

    Args:
      worker: this process; the workers have met.
      gpus: number of this worker's GPUs, the same in all.
      timeout: seconds to wait for the other workers.

    Raises:
      LostWorkerError: if another worker has left since they have met.
    """
    workers = tf.train.ClusterSpec({"worker": worker.addresses})
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        workers,
        task_type="worker",
        task_id=worker.index,
        num_accelerators={"GPU": gpus},
        rpc_layer="grpc",
    )
    # The strategy would configure the same, with other timeouts, which have no public name.
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
    # If a worker died in the 0.1 s since the rendezvous, TensorFlow waits without end, and Python's
    # threads do not run. The kernel then ends this process by SIGALRM.
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
        # TensorFlow handles SIGTERM as a notice of preemption, which this program does not read.
        signal.signal(signal.SIGTERM, handler)
