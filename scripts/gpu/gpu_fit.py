"""Computes with XLA's compiler whether a recipe's update fits on NVIDIA GPUs.

    scripts/gpu/fit.sh --device=h100 --gpus=8 --flagfile=flags/imagenet_resnet_50_smith.flags

scripts/fit/fit.py says how. The memory is what the program needs; CUDA itself takes about 0.5 GiB
more. The convolutions are listed by who computes them and in which type. No speed is computed,
because XLA would have to measure kernels on a GPU.

Exit status: 0 if the recipe's layout fits, 1 if it does not fit, 2 for a user's mistake.
"""

import argparse
import sys
from typing import Any

from scripts.fit import fit
from trainer.errors import UserError


def compiler(device: str | None, gpus: int) -> fit.Compiler:
    """Returns the compiler for `gpus` cards of one kind.

    Raises:
      UserError: if `device` is None.
    """
    remedy = "Give --device=h100, a100 or l4, and --gpus=1 to 999."
    if device is None:
        raise UserError(f"--device is missing.\n{remedy}")
    return fit.Compiler(
        environment=".venv-gpu-compiler",
        script="scripts/gpu/fit.sh",
        module="scripts.gpu.gpu_compile",
        target=f"{device}x{gpus}",
        remedy=remedy,
        unit="GPU",
        notes=notes,
    )


def notes(result: dict[str, Any], _: int) -> list[str]:
    """Returns the kernels and the convolutions of an update."""
    convolutions = [f"{count} × {kind}" for kind, count in result["convolutions"].items()]
    return [
        "kernels: {pass} a pass of the accumulation, {update} to end an update".format(
            **result["kernels"]
        ),
        f"convolutions: {', '.join(convolutions) or 'none'}",
    ]


def main() -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--device", help="kind of card: h100, a100 or l4")
    parser.add_argument("--gpus", type=int, default=1, help="number of cards, one replica each")
    own, others = parser.parse_known_args()
    return fit.main("gpu_fit", others, lambda: compiler(own.device, own.gpus))


if __name__ == "__main__":
    sys.exit(main())
