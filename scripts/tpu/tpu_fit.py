"""Computes with libtpu's compiler whether a recipe's update fits on a TPU slice.

    scripts/tpu/tpu_fit.sh --topology=v5e:2x4 --flagfile=flags/imagenet_resnet_50_smith.flags

scripts/fit/fit.py says how. The printed memory and collectives are exact, and the cycles are the
compiler's estimate. Near the memory limit, the compiler recomputes values that it cannot keep. So
the largest micro-batch may not be the fastest: compare the cycles an example.

Exit status: 0 if the recipe's layout fits, 1 if it does not fit, 2 for a user's mistake.
"""

import argparse
import sys
from typing import Any

from scripts.fit import fit
from trainer.errors import UserError


def compiler(topology: str | None) -> fit.Compiler:
    """Returns the compiler for a TPU slice.

    Raises:
      UserError: if `topology` is None.
    """
    remedy = "Give a generation and its chips, such as v5e:2x4, v4:4x4x4, v5p:2x2x2 or v6e:4x4."
    if topology is None:
        raise UserError(f"--topology is missing.\n{remedy}")
    return fit.Compiler(
        environment=".venv-tpu-compiler",
        script="scripts/tpu/tpu_fit.sh",
        module="scripts.tpu.tpu_compile",
        target=topology,
        remedy=remedy,
        unit="core",
        notes=notes,
    )


def notes(result: dict[str, Any], size: int) -> list[str]:
    """Returns the cost of one pass of `size` examples and of the update, as the compiler has it."""
    mega = result["cycles"] / 1e6
    return [
        f"one pass and the update: {result['flops'] / 1e12:.3f} TFLOP, "
        f"{result['bytes_accessed'] / 1e9:.2f} GB accessed, {mega:.1f} Mcycles, "
        f"{mega / size:.3f} an example"
    ]


def main() -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument(
        "--topology", help="TPU slice: generation and chips, such as v5e:2x4, v4:4x4x4, v6e:4x4"
    )
    own, others = parser.parse_known_args()
    return fit.main("tpu_fit", others, lambda: compiler(own.topology))


if __name__ == "__main__":
    sys.exit(main())
