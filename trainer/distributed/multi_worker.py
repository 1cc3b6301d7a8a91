"""Strategy over several workers; if one worker is lost, the others end in bounded time."""

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import tensorflow as tf
from tensorflow.compiler.xla.tsl.protobuf.coordination_config_pb2 import CoordinatedJob
from tensorflow.python.eager import context

from trainer.distributed.heartbeat import Heartbeat
from trainer.distributed.rendezvous import rendezvous
from trainer.distributed.worker import Worker
from trainer.errors import LostWorkerError
from trainer.system.tensorflow_errors import translate

# Fractions of --worker_timeout: the silence after which a worker is lost, and each of the two waits
# in `_Lost.note`.
_SILENCE, _GRACE = 0.6, 0.15
# Text of an error that a worker, or any other program, has sent to TensorFlow's server.
_REPORTED = "Error reported from /job:"
# Text and classes of the errors of a collective operation that has lost a connection.
_ABORTED = "Collective ops is aborted by: "
_CUT = (
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.UnavailableError,
)


@contextlib.contextmanager
def worker_session(
    worker: Worker | None, timeout: float, flags: Sequence[str] = (), chief_start: float = 0.0
) -> Iterator[Callable[[str], list[str]]]:
    """Connects to the other workers, monitors them in the `with` block, and awaits their end.

    If another worker is lost, this process ends within `timeout` seconds of that worker's last
    message. If TensorFlow raises an error because of the loss, a LostWorkerError replaces the
    error. If TensorFlow waits forever, a thread ends the process with the message and the status of
    a LostWorkerError. If the block raises an error, the other workers count this worker as lost.

    Args:
      worker: this process; None if the run has only one process.
      timeout: value of --worker_timeout, in seconds.
      flags: command-line flags that must be the same in all workers.
      chief_start: seconds that the chief may need before it connects, besides `timeout`.

    Yields:
      A function that sends this worker's text, and returns the texts of all workers, by index.

    Raises:
      LostWorkerError: if another worker does not connect in time, dies or hangs.
      UserError: if another worker has other flags or addresses, or this worker's port is taken.
    """
    if worker is None:
        yield lambda text: [text]
        return
    gpus = len(tf.config.list_physical_devices("GPU"))
    lost = _Lost(worker, timeout * _GRACE)
    same = {"GPUs": gpus, "flags": list(flags)}
    wait = timeout if worker.chief else timeout + chief_start
    lines, done = rendezvous(worker, same, wait), False
    heartbeat = Heartbeat(lines, timeout * _SILENCE, lost.note)
    try:
        with translate(lambda error: lost.error(error, timeout)):
            yield heartbeat.exchange
        done = True
    finally:
        # If the block failed, the other workers may fail too. Then this process reports only its
        # own error.
        heartbeat.leave(done)


class _Lost:
    """Ends this process after the loss of a worker, unless the process ends by itself in time."""

    def __init__(self, worker: Worker, grace: float) -> None:
        self.message = ""
        self._worker, self._grace = worker, grace
        self._known, self._taken = threading.Event(), threading.Event()

    def note(self, index: int) -> None:
        """Ends this process after the loss of worker `index`.

        Prints the message, unless `error` is called within the grace period and returns it.
        """
        what = f"has lost {self._worker.name(index)}"
        if index == self._worker.index:  # The others count this process as lost.
            what = "was silent for too long, and the others have left"
        self.message = (
            f"{self._worker} {what}.\n"
            "Start all workers again: they resume from the last checkpoint."
        )
        self._known.set()
        if not self._taken.wait(self._grace):
            print(f"crescendo train: {self.message}", file=sys.stderr, flush=True)
            os._exit(LostWorkerError.status)
        time.sleep(self._grace)  # The process may finish a checkpoint meanwhile.
        os._exit(LostWorkerError.status)

    def error(self, error: tf.errors.OpError, timeout: float) -> LostWorkerError | None:
        """Returns a LostWorkerError if the loss of a worker or of a connection caused `error`."""
        text = str(error)
        if "ollective" in text:
            # TensorFlow may notice the loss before the heartbeat does.
            lost = self._known.wait(timeout)
            self._taken.set()
            if lost:
                return LostWorkerError(self.message)
        if _REPORTED in text or (isinstance(error, _CUT) and _ABORTED in text):
            # One line of TensorFlow's long message has the reason.
            line = next(row for row in text.splitlines() if _REPORTED in row or _ABORTED in row)
            reason = line.rpartition(_ABORTED)[2][:300].strip().rstrip(".")
            return LostWorkerError(
                f"{self._worker} was cut off from the others by TensorFlow: {reason}.\n"
                "Start all workers again, where no other program can reach their ports "
                "(docs/clusters.md)."
            )
        return None


def create_strategy(worker: Worker, gpus: int, timeout: float) -> tf.distribute.Strategy:
    """Returns the strategy with a replica on each GPU, or on each worker if there are no GPUs.

    Args:
      worker: this process, which is already in a `worker_session`.
      gpus: number of GPUs of each worker.
      timeout: seconds to wait for the other workers.

    Raises:
      LostWorkerError: if another worker has left since the rendezvous.
    """
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": worker.addresses}),
        task_type="worker",
        task_id=worker.index,
        num_accelerators={"GPU": gpus},
        rpc_layer="grpc",
    )
    # TensorFlow's coordination service monitors the workers too, and ends a process without a
    # message. Its heartbeat timeout is ten times `timeout`, so that `Heartbeat` notices a loss
    # first. The strategy would set other timeouts, and has no option for them.
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader="/job:worker/replica:0/task:0",
        cluster_register_timeout_in_ms=int(1000 * timeout),
        heartbeat_timeout_in_ms=int(10 * 1000 * timeout),
        coordinated_jobs=[CoordinatedJob(name="worker", num_tasks=len(worker.addresses))],
    )
    communication = tf.distribute.experimental.CommunicationImplementation
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=communication.AUTO if gpus else communication.RING
    )
    handler = signal.getsignal(signal.SIGTERM)
    # If a worker has just died, TensorFlow waits forever here, and Python's threads do not run. So
    # the kernel ends this process by SIGALRM after `timeout` seconds.
    signal.setitimer(signal.ITIMER_REAL, timeout)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(resolver, options)
    except tf.errors.OpError as error:
        reason = str(error).splitlines()[0]
        message = f"{worker} cannot join the others: {reason}.\nStart all workers again."
        raise LostWorkerError(message) from error
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        # The strategy has installed TensorFlow's handler of SIGTERM, which only notes a preemption.
        # This line restores the program's own handler.
        signal.signal(signal.SIGTERM, handler)
