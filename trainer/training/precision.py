"""Chooses the precision, the data type of the layers' computations, for --precision=auto.

A run has one precision from its start to its end. A new run gets the precision that suits the
hardware of the chief, which is the first process. A resumed run keeps the precision in its
flags.txt, because another precision would change what it learns. The command
`python -m trainer.training.precision` prints the precision for this machine, and the reason.
"""

import dataclasses
import pathlib
import subprocess
import sys
from typing import NamedTuple

import tensorflow as tf

from trainer.config.flagfile import recorded_precision
from trainer.config.flags import Config
from trainer.config.model_flags import AUTO, BFLOAT16, FLOAT32
from trainer.distributed.process_group import ProcessGroup
from trainer.errors import UserError
from trainer.run_dir import directory
from trainer.system.output import log

# Lowest compute capability of NVIDIA's GPUs that multiply bfloat16 in hardware (Ampere).
_COMPUTE_CAPABILITY = (8, 0)
_UNKNOWN = (0, 0)  # Stands for a compute capability that TensorFlow does not report.
# A CPU with one of these flags in /proc/cpuinfo multiplies bfloat16 in hardware.
_INSTRUCTIONS = ("amx_bf16", "avx512_bf16")


class Choice(NamedTuple):
    """A value of --precision other than auto, and a text with the reason for this value."""

    precision: str
    reason: str


def resolved(config: Config, path: pathlib.Path, group: ProcessGroup) -> Config:
    """Returns `config` with the precision of the run in `path` in place of auto, and logs it.

    If --precision is not auto, returns `config`. The chief decides for all processes of `group`.
    Only the chief reads `path`.

    Raises:
      OSError: if the run's flags cannot be read.
    """
    if config.precision != AUTO:
        return config
    choice = _choose(config, directory.kept_flags(path)) if group.chief else Choice("", "")
    precision, _, reason = group.broadcast_text("\n".join(choice)).partition("\n")
    log(f"this run computes in {precision}, because {reason}")
    return dataclasses.replace(config, precision=precision)


def _choose(config: Config, kept: str | None) -> Choice:
    """Returns a run's precision; `kept` is the text of its flags.txt, or None for a new run."""
    if kept is not None:
        return Choice(recorded_precision(kept), "it began with this precision")
    if config.deterministic:
        return Choice(FLOAT32, "--deterministic is given")
    if config.strategy == "tpu":
        return Choice(BFLOAT16, "TPUs multiply in bfloat16")
    return of_this_machine()


def of_this_machine() -> Choice:
    """Returns a new run's precision on this machine's GPUs, or on its CPU if it lacks GPUs."""
    if gpus := tf.config.list_physical_devices("GPU"):
        details = map(tf.config.experimental.get_device_details, gpus)
        return _of_gpus([each.get("compute_capability", _UNKNOWN) for each in details])
    return _of_cpu(pathlib.Path("/proc/cpuinfo"))


def _of_gpus(capabilities: list[tuple[int, int]]) -> Choice:
    """Returns the precision for GPUs of these compute capabilities; the oldest GPU decides."""
    oldest = min(capabilities)
    if oldest == _UNKNOWN:
        return Choice(FLOAT32, "TensorFlow does not know the compute capability of this GPU")
    reason = "the oldest GPU of this machine has compute capability {}.{}".format(*oldest)
    return Choice(BFLOAT16 if oldest >= _COMPUTE_CAPABILITY else FLOAT32, reason)


def _of_cpu(cpuinfo: pathlib.Path) -> Choice:
    """Returns the precision for the CPU that Linux's file `cpuinfo` describes."""
    lines = cpuinfo.read_text(errors="replace").splitlines() if cpuinfo.exists() else []
    found = {word for line in lines if line.startswith("flags") for word in line.split()}
    for name in _INSTRUCTIONS:
        if name in found:
            return Choice(BFLOAT16, f"this CPU has {name}")
    return Choice(FLOAT32, f"this CPU has neither {' nor '.join(_INSTRUCTIONS)}")


def of_this_machine_in_a_process() -> Choice:
    """Returns the result of `of_this_machine` from a separate process, whose end frees the GPUs.

    Raises:
      UserError: if the process fails.
    """
    command = [sys.executable, "-m", __name__]
    found = subprocess.run(command, capture_output=True, text=True, check=False)
    if found.returncode:
        last = found.stderr.strip().rpartition("\n")[2]
        raise UserError(
            f"the precision for this machine is not known, because TensorFlow failed: {last}\n"
            "Give --precision=float32 or --precision=bfloat16."
        )
    precision, reason = found.stdout.splitlines()[-2:]
    return Choice(precision, reason)


if __name__ == "__main__":
    print(*of_this_machine(), sep="\n")
