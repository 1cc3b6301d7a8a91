"""Devices of a run, as a tf.distribute strategy, and the division of the cores among replicas."""

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
    """Returns the strategy and its lanes; call it once, before TensorFlow computes.

    A lane is a part of a micro-batch that a CPU computes beside others; GPUs and TPUs have one.

    Args:
      name: value of --strategy; `auto` takes all GPUs, or else the CPU or its virtual devices.
      virtual_devices: number of devices to split the CPU into; None: it is not split.
      deterministic: whether all kernels are bit-reproducible.
      ghost_batch_size: in examples.
      worker: this process, if it is one of several, which have met.
      worker_timeout: seconds to wait for the other workers.
      on_tpu: the TPU to use.

    Raises:
      UserError: for virtual devices on a machine with GPUs; for multi_worker without a worker; if
        the TPU is not available.
      LostWorkerError: if another worker has left since they have met.
    """
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    if on_tpu:
        return tpu.connect(on_tpu), 1
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        # Otherwise the first process takes the memory of the whole GPU.
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
    """Returns the lanes of a replica on this machine's CPU, and the threads of an operation.

    A replica has as many lanes as cores, or as ghost batches in a micro-batch if they are fewer.
    Two cores with a lane each train 1.2 times as fast as two that share each operation.
    """
    cores = max(1, len(usable()) // replicas)
    lanes = min(cores, default_micro_batch_size(ghost_batch_size) // ghost_batch_size)
    return lanes, cores // lanes


def mirrored(devices: list[str]) -> tf.distribute.Strategy:
    """Returns the strategy with a replica on each of `devices`, which are all of one kind."""
    if "CPU" not in devices[0]:
        return tf.distribute.MirroredStrategy(devices)
    # Between CPUs the default is a collective with one group in the process, and a second strategy
    # of another size aborts it.
    reduction = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(devices, cross_device_ops=reduction)


def next_per_replica(strategy: tf.distribute.Strategy, iterator: Any) -> Any:
    """Returns the next elements of a dataset's iterator, one for each replica of this process.

    TensorFlow's own distribution makes an iterator for each device. Each has a thread that tunes
    it, even if the options forbid it; the thread sleeps for up to a minute, and the iterator's end
    waits for it. A TPU's cores get the elements from the machine that runs the program.
    """
    return strategy.experimental_distribute_values_from_function(lambda _: iterator.get_next())


def on_cpu(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether the strategy's replicas compute on CPUs."""
    return all("CPU" in device for device in strategy.extended.worker_devices)


def is_tpu(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether the strategy's replicas compute on a TPU."""
    return isinstance(strategy, tf.distribute.TPUStrategy)
