"""Creates the tf.distribute strategy of a run, and divides the cores among its replicas."""

import contextlib

import tensorflow as tf

from trainer.distributed import process_devices, tpu
from trainer.distributed.multi_worker import create_strategy
from trainer.distributed.process_devices import ProcessDevices
from trainer.distributed.tpu_address import TpuAddress
from trainer.distributed.worker import Worker
from trainer.errors import UserError
from trainer.schedule.layout import default_micro_batch_size
from trainer.system.cores import usable
from trainer.system.output import log


def connect(
    name: str,
    *,
    virtual_devices: int | None,
    deterministic: bool,
    ghost_batch_size: int,
    worker: Worker | None = None,
    worker_timeout: float = 60.0,
    on_tpu: TpuAddress | None = None,
) -> tuple[tf.distribute.Strategy, int]:
    """Returns the strategy and the number of lanes per replica; call once, before TensorFlow runs.

    A lane is a part of a micro-batch that a CPU computes in parallel with the other lanes. A
    replica on a GPU or TPU has one lane.

    Args:
      name: value of --strategy. `auto` takes all GPUs. If there are no GPUs, it takes the CPU or
        the CPU's virtual devices.
      virtual_devices: number of devices to split the CPU into; None does not split the CPU.
      deterministic: True to make all kernels bit-reproducible.
      ghost_batch_size: number of examples that share batch-norm statistics.
      worker: this process, which is already in a `worker_session`; None if the run has one process.
      worker_timeout: seconds to wait for the other workers.
      on_tpu: the TPU to use, if any.

    Raises:
      UserError: if virtual devices are requested on a machine with GPUs, if `name` is multi_worker
        and `worker` is None, or if the TPU is not available.
      LostWorkerError: if another worker has left since the rendezvous.
    """
    if deterministic:
        tf.config.experimental.enable_op_determinism()
    if on_tpu:
        return tpu.connect(on_tpu), 1
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        # By default, the first process to use a GPU takes all of its memory. The caller's program
        # may have started TensorFlow already; then its choice stays.
        with contextlib.suppress(RuntimeError):
            tf.config.experimental.set_memory_growth(gpu, True)
    if virtual_devices:
        if gpus:
            raise UserError(
                f"--virtual_devices={virtual_devices} splits a CPU, and this machine has "
                f"{len(gpus)} GPUs.\n"
                "Leave the flag out, or hide the GPUs with CUDA_VISIBLE_DEVICES=-1."
            )
        _split_cpu(virtual_devices)
    process_devices.remember(ProcessDevices(name, virtual_devices, deterministic))
    kind, count = ("GPU", len(gpus)) if gpus else ("CPU", virtual_devices or 1)
    devices = [f"{kind}:{i}" for i in range(count)]
    lanes = 1
    if not gpus:
        lanes, threads = share_cores(len(devices), ghost_batch_size)
        _set_threads(threads)
    if name == "multi_worker" and worker is None:
        raise UserError(
            "--strategy=multi_worker works only with the commands train and range_test: leave "
            "--strategy out."
        )
    if worker:
        return create_strategy(worker, len(gpus), worker_timeout), lanes
    if name == "mirrored" or (name == "auto" and len(devices) > 1):
        return mirrored(devices), lanes
    return tf.distribute.OneDeviceStrategy(devices[0]), lanes


def _split_cpu(count: int) -> None:
    """Splits the CPU into `count` devices."""
    (cpu,) = tf.config.list_physical_devices("CPU")
    part = tf.config.LogicalDeviceConfiguration()
    try:
        tf.config.set_logical_device_configuration(cpu, [part] * count)
    except RuntimeError as error:
        raise UserError(
            f"--virtual_devices={count} cannot split the CPU, because TensorFlow has already "
            "started in this process.\n"
            "Start Python again, and train before anything else uses TensorFlow."
        ) from error


def _set_threads(count: int) -> None:
    """Sets the number of threads of one operation, or says that it stays another one."""
    try:
        tf.config.threading.set_intra_op_parallelism_threads(count)
    except RuntimeError:
        log(
            "TensorFlow had already started in this process, and keeps its number of threads; the "
            "results may differ by rounding from those of a new process"
        )


def share_cores(replicas: int, ghost_batch_size: int) -> tuple[int, int]:
    """Returns the number of lanes per replica on the CPU, and the number of threads per operation.

    The replicas share the cores evenly. A replica has one lane per core, up to the number of
    ghost batches in the default micro-batch. On two cores, two lanes with one thread each train 1.2
    times as fast as one lane with two threads.
    """
    cores = max(1, len(usable()) // replicas)
    lanes = min(cores, default_micro_batch_size(ghost_batch_size) // ghost_batch_size)
    return lanes, cores // lanes


def mirrored(devices: list[str]) -> tf.distribute.Strategy:
    """Returns the strategy with a replica on each of `devices`, which are all GPUs or all CPUs."""
    if "CPU" not in devices[0]:
        return tf.distribute.MirroredStrategy(devices)
    # The default reduction on CPUs allows only one group of devices per process. It fails if the
    # process creates a second strategy with another number of replicas.
    reduction = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(devices, cross_device_ops=reduction)


def on_cpu(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether the strategy's replicas compute on CPUs."""
    return all("CPU" in device for device in strategy.extended.worker_devices)


def compiles_by_xla(strategy: tf.distribute.Strategy, xla: str, *, deterministic: bool) -> bool:
    """Returns whether the training step requests XLA; `xla` is the value of --xla."""
    if is_tpu(strategy):
        return False  # TensorFlow compiles for TPUs without a request.
    return xla == "on" or (xla == "auto" and not deterministic and not on_cpu(strategy))


def is_tpu(strategy: tf.distribute.Strategy) -> bool:
    """Returns whether the strategy's replicas compute on a TPU."""
    return isinstance(strategy, tf.distribute.TPUStrategy)
