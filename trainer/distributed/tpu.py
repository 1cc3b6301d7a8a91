"""Connects to a TPU, or explains why the TPU cannot be used."""

import contextlib
import importlib.metadata
import re
from typing import TYPE_CHECKING

from trainer.distributed import host_connection, host_monitor, tpu_api
from trainer.distributed.tpu_address import TpuAddress
from trainer.errors import LostWorkerError, UserError

if TYPE_CHECKING:
    import tensorflow as tf

    from trainer.system.tensorflow_errors import Translation

_START_ALL = "Start all hosts and the program again: the run resumes from its last checkpoint."
_LIBTPU = "0.0.24"  # Newest version with which tensorflow-tpu 2.20 does not abort.


def check_packages() -> None:
    """Raises a UserError if libtpu is too new for tensorflow-tpu; call before importing TensorFlow.

    With such a libtpu, TensorFlow would abort the process without a message.
    """
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        tensorflow = importlib.metadata.version("tensorflow-tpu")
        libtpu = importlib.metadata.version("libtpu")
        if tensorflow.startswith("2.20.") and _numbers(libtpu)[:3] > _numbers(_LIBTPU):
            raise UserError(
                f"tensorflow-tpu {tensorflow} aborts with libtpu {libtpu}, which is too new.\n"
                f"Run pip install 'libtpu<={_LIBTPU}'."
            )


def connect(tpu: TpuAddress) -> "tf.distribute.Strategy":
    """Returns the strategy over all cores of `tpu`; call once, before TensorFlow computes.

    Raises:
      UserError: if the TPU cannot be used, or is not healthy within ten minutes.
    """
    import tensorflow as tf

    version, remedy = f"TensorFlow {tf.__version__}", "Run on the TPU VM itself, with --tpu=local."
    if tpu.hosts:
        resolver = host_connection.connect(tpu.hosts)
        remedy = "Run `bash scripts/tpu/tpu_worker.sh host` on each host, with the extra tpu."
    else:
        if not tpu.local:
            tpu_api.check_answers(tpu)
        with tpu_api.asking(tpu):
            resolver = tf.distribute.cluster_resolver.TPUClusterResolver(
                tpu.name, tpu.zone, tpu.project
            )
            tf.config.experimental_connect_to_cluster(resolver)
    if tpu.local:
        remedy = (
            "On a TPU VM, run pip install -e '.[tpu]' in an environment without another "
            "TensorFlow; elsewhere, leave --strategy=tpu out."
        )
    try:
        tf.tpu.experimental.initialize_tpu_system(resolver)
        strategy = tf.distribute.TPUStrategy(resolver)
        if tpu.hosts:
            # TensorFlow cannot read a packed variable, one handle for all replicas, from a process
            # that is not one of the hosts.
            strategy._enable_packed_variable_in_eager_mode = False
        return strategy
    except IndexError as error:
        raise UserError(f"{version} finds no cores in {tpu}.\n{remedy}") from error
    except tf.errors.NotFoundError as error:
        built = "OpKernel" not in str(error)
        problem = f"finds no TPU at --tpu={tpu.name}" if built else "is not built for TPUs"
        raise UserError(f"{version} {problem}.\n{remedy}") from error
    except tf.errors.OpError as error:
        if tpu.hosts and isinstance(error, (tf.errors.UnavailableError, tf.errors.AbortedError)):
            raise LostWorkerError(f"{_lost_host(tpu, error)}\n{_START_ALL}") from error
        problem = f"{tpu} cannot be initialized: {str(error).splitlines()[0]}"
        raise UserError(f"{problem}\nEnd all other processes that use the TPU.") from error


def lost(tpu: TpuAddress | None) -> "Translation":
    """Returns a function that turns TensorFlow's error for a lost TPU into a LostWorkerError.

    The message of the LostWorkerError has a remedy, which depends on whether the TPU can recover.
    """
    import tensorflow as tf

    def translation(error: tf.errors.OpError) -> LostWorkerError | None:
        losses = tf.errors.UnavailableError, tf.errors.AbortedError
        if tpu is None or not isinstance(error, losses):
            return None
        if tpu.hosts:
            return LostWorkerError(f"{_lost_host(tpu, error)}\n{_START_ALL}")
        remedy = "Start the same command again: it resumes from the last checkpoint."
        try:
            if not tpu.local:
                tpu_api.check_recoverable(tpu)
        except UserError as gone:
            remedy = str(gone).replace("\n", " ")
        return LostWorkerError(f"{tpu} is lost: {str(error).splitlines()[0]}\n{remedy}")

    return translation


def _lost_host(tpu: TpuAddress, error: Exception) -> str:
    """Returns a text about the loss of a host of a slice, with the first cause in `error`."""
    text = str(error)
    cause = re.search(r"^\s*\(0\)\s*(.+)$", text, re.MULTILINE)  # One of several root errors.
    host = host_monitor.lost_host() or f"a host of {tpu}"
    return f"{host} is lost: {cause[1] if cause else text.splitlines()[0]}"


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version))
