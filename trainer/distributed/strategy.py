"""Which devices a run uses, one or several of this machine, and how it shares out the cores."""

from typing import Any

import tensorflow as tf

from trainer.distributed import tpu
from trainer.distributed.multi_worker import create_strategy
from trainer.distributed.worker import Worker
from trainer.errors import UserError
from trainer.schedule.layout import default_micro_batch_size
from trainer.system.cores import usable


def connect(
    name: str,
    *,
    virtual_devices: int | None,
    deterministic: bool,
    ghost_batch_size: int,
    worker: Worker | None = None,
    worker_timeout: float = 60.0,
    on_tpu: tpu.TpuAddress | None = None,
) -> tuple[tf.distribute.Strategy, int]:
    """The strategy for `--strategy=name`, and its lanes; call once, before TensorFlow computes.

    `auto` takes every GPU, else the CPU or its `virtual_devices`. Lanes are equal parts of a
    micro-batch that are computed side by side; GPUs and TPUs have one. `multi_worker` is for
    `worker` and the others of its run, which have met. `tpu` is `on_tpu`.

    Raises:
      UserError: for virtual devices on a machine with GPUs; for multi_worker without a worker;
        where the TPU cannot be had.
      LostWorkerError: where another worker has left since they have met.
    """
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    if on_tpu:
        return tpu.connect(on_tpu), 1
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        # Or the first process takes the whole GPU, though it needs a part.
        tf.config.experimental.set_memory_growth(gpu, True)
    if virtual_devices and gpus:
        raise UserError(
            f"--virtual_devices={virtual_devices} splits a CPU, but this machine has {len(gpus)} "
            "GPUs: leave it out, or hide them with CUDA_VISIBLE_DEVICES=-1."
        )
    if virtual_devices:
        (cpu,) = tf.config.list_physical_devices("CPU")
        part = tf.config.LogicalDeviceConfiguration()
        tf.config.set_logical_device_configuration(cpu, [part] * virtual_devices)
    kind = "GPU" if gpus else "CPU"
    devices = [f"{kind}:{i}" for i in range(len(gpus) or virtual_devices or 1)]
    lanes = 1
    if not gpus:
        lanes, threads = share_cores(len(devices), ghost_batch_size)
        tf.config.threading.set_intra_op_parallelism_threads(threads)
    if name == "multi_worker" and worker is None:
        raise UserError("--strategy=multi_worker is for train and range_test: leave it out.")
    if worker:
        return create_strategy(worker, len(gpus), worker_timeout), lanes
    if name == "auto":
        name = "mirrored" if len(devices) > 1 else "one_device"
    if name == "mirrored":
        return mirrored(devices), lanes
    return tf.distribute.OneDeviceStrategy(devices[0]), lanes


def share_cores(replicas: int, ghost_batch_size: int) -> tuple[int, int]:
    """Lanes of a replica on this machine's CPU, and threads of an operation.

    As many lanes as there are cores, or ghost batches in a micro-batch: two cores that each take
    their part of the examples train 1.2 times as fast as two that meet at every operation's end.
    """
    cores = max(1, len(usable()) // replicas)
    lanes = min(cores, default_micro_batch_size(ghost_batch_size) // ghost_batch_size)
    return lanes, cores // lanes


def mirrored(devices: list[str]) -> tf.distribute.Strategy:
    """A replica on each of `devices`, all of one kind."""
    if "CPU" not in devices[0]:
        return tf.distribute.MirroredStrategy(devices)
    # The default between CPUs is a collective whose group is the process's: a second strategy of
    # another size aborts it.
    reduction = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(devices, cross_device_ops=reduction)


def next_per_replica(strategy: tf.distribute.Strategy, iterator: Any) -> Any:
    """The next elements of a dataset's `iterator`, one for each replica of this process, in turn.

    TensorFlow's own way to several devices has an iterator for each, with a thread that tunes it
    whatever the options say; that thread sleeps for up to a minute at a time, and the end of the
    iterator waits for it. To a TPU's cores they come from the host that runs the program.
    """
    return strategy.experimental_distribute_values_from_function(lambda _: iterator.get_next())


def on_cpu(strategy: tf.distribute.Strategy) -> bool:
    """Whether the strategy's replicas compute on CPUs."""
    return all("CPU" in device for device in strategy.extended.worker_devices)


def is_tpu(strategy: tf.distribute.Strategy) -> bool:
    """Whether the strategy's replicas compute on a TPU."""
    return isinstance(strategy, tf.distribute.TPUStrategy)
