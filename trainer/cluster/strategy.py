"""Which devices a run uses: one, or several of this machine."""

import tensorflow as tf

from trainer.config import UserError


def connect(
    name: str, *, virtual_devices: int | None, deterministic: bool
) -> tf.distribute.Strategy:
    """The tf.distribute strategy for `--strategy=name`; call once, before TensorFlow computes.

    `auto` takes every GPU, else the CPU or its `virtual_devices`.

    Raises:
      UserError: for virtual devices on a machine with GPUs.
    """
    if deterministic:
        tf.config.experimental.enable_op_determinism()
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
    if name == "auto":
        name = "mirrored" if len(devices) > 1 else "one_device"
    if name == "mirrored":
        return mirrored(devices)
    return tf.distribute.OneDeviceStrategy(devices[0])


def mirrored(devices: list[str]) -> tf.distribute.Strategy:
    """A replica on each of `devices`, all of one kind."""
    if "CPU" not in devices[0]:
        return tf.distribute.MirroredStrategy(devices)
    # The default between CPUs is a collective whose group is the process's: a second strategy of
    # another size aborts it.
    reduction = tf.distribute.ReductionToOneDevice()
    return tf.distribute.MirroredStrategy(devices, cross_device_ops=reduction)


def on_cpu(strategy: tf.distribute.Strategy) -> bool:
    """Whether the strategy's replicas compute on CPUs."""
    return all("CPU" in device for device in strategy.extended.worker_devices)
