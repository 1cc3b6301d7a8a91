"""The strategy over several processes: TensorFlow's MultiWorkerMirroredStrategy, with bounds."""

import contextlib
import faulthandler
import re
import signal
from collections.abc import Iterator

import tensorflow as tf
from tensorflow.compiler.xla.tsl.protobuf import coordination_config_pb2
from tensorflow.python.eager import context

from trainer.cluster import rendezvous
from trainer.cluster.workers import Worker
from trainer.config import UserError


class LostWorkerError(Exception):
    """Another worker has died or hangs, and the update in which it was missed is void."""


@contextlib.contextmanager
def noticed(worker: Worker | None) -> Iterator[None]:
    """Raises a LostWorkerError in place of what TensorFlow makes of one that is lost."""
    try:
        yield
    except tf.errors.OpError as error:
        text = str(error)
        if worker is None or "Collective ops is aborted" not in text:
            raise
        named = [int(index) for index in re.findall(r"/task:(\d+)", text)]
        lost = next((i for i in named if i != worker.index), None)
        who = "another worker" if lost is None else worker.name(lost)
        raise LostWorkerError(
            f"{worker} has lost {who}.\n"
            "Start all workers again: they go on from the last checkpoint."
        ) from error


def join(worker: Worker, gpus: int, timeout: float) -> tf.distribute.Strategy:
    """The strategy over all workers' GPUs, or their CPUs, a replica each.

    A worker from which nothing has come for `timeout` seconds is lost: the others' collectives
    raise a tf.errors.OpError then.

    Raises:
      UserError: where another worker does not come, or is another run's.
    """
    rendezvous.meet(worker, gpus or 1, timeout)
    workers = tf.train.ClusterSpec({"worker": worker.addresses})
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        workers,
        task_type="worker",
        task_id=worker.index,
        num_accelerators={"GPU": gpus},
        rpc_layer="grpc",
    )
    # As the strategy would by itself, but for the timeouts; no public name reaches them.
    context.context().configure_coordination_service(
        service_type="standalone",
        service_leader="/job:worker/replica:0/task:0",
        cluster_register_timeout_in_ms=int(1000 * timeout),
        heartbeat_timeout_in_ms=int(1000 * timeout),
        coordinated_jobs=[
            coordination_config_pb2.CoordinatedJob(name="worker", num_tasks=len(worker.addresses))
        ],
    )
    communication = tf.distribute.experimental.CommunicationImplementation
    options = tf.distribute.experimental.CommunicationOptions(
        implementation=communication.AUTO if gpus else communication.RING
    )
    handler = signal.getsignal(signal.SIGTERM)
    # Of a worker that leaves right after the meeting TensorFlow would wait for ever, and no thread
    # of Python's runs meanwhile.
    faulthandler.dump_traceback_later(2 * timeout, exit=True)
    try:
        return tf.distribute.MultiWorkerMirroredStrategy(resolver, options)
    except tf.errors.OpError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{worker} cannot join the others: {reason}.\nStart all again.") from error
    finally:
        faulthandler.cancel_dump_traceback_later()
        # TensorFlow takes this signal for a notice of preemption that nobody reads.
        signal.signal(signal.SIGTERM, handler)
