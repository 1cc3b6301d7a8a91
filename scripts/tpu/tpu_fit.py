"""Computes with libtpu's compiler whether a recipe's update fits on a TPU slice.

    scripts/tpu/tpu_fit.sh --topology=v5e:2x4 --flagfile=flags/imagenet_resnet_50_smith.flags

The program traces an update of the recipe's largest batch, which is laid out on the slice's cores
as by `plan` (tpu_fit_trace.py lists the differences from a run). It compiles the update
(tpu_fit_compile.py). Then it searches for the largest micro-batch that fits, among those that
divide a core's share of the batch.

The program does not execute the update. The printed memory and collectives are exact, and the
cycles are the compiler's estimate. Near the memory limit, the compiler recomputes values that it
cannot keep. So the largest micro-batch may not be the fastest: compare the cycles an example.

Exit status: 0 if the recipe's layout fits, 1 if it does not fit, 2 for a user's mistake.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # Hides the notes of TensorFlow and XLA.

from trainer.commands.plan import layouts, planned
from trainer.config.command_line import parse
from trainer.config.flags import Config
from trainer.config.model_flags import AUTO, BFLOAT16
from trainer.errors import UserError
from trainer.schedule.plan import Phase, ramps

_COMPILER = pathlib.Path(__file__).parents[2] / ".venv-tpu-compiler/bin/python"
_COMPILES = 5  # Most compilations; each takes minutes for a large network.
_GIB = 2**30


def compiler(topology: str, *module: str) -> dict[str, Any]:
    """Runs tpu_fit_compile.py and returns the object that it prints.

    Raises:
      UserError: if the compiler's environment is not complete, or `topology` is not a TPU slice.
    """
    if not _COMPILER.exists():
        raise UserError(
            f"the compiler's environment {_COMPILER.parent.parent} is missing.\n"
            "Run scripts/tpu/tpu_fit.sh, which makes it."
        )
    script = pathlib.Path(__file__).with_name("tpu_fit_compile.py")
    done = subprocess.run(
        [_COMPILER, script, topology, *module], capture_output=True, text=True, check=False
    )
    if "No module named" in done.stderr:
        raise UserError(
            f"the compiler's environment is incomplete: {done.stderr.splitlines()[-1]}.\n"
            f"Remove {_COMPILER.parent.parent}, and run scripts/tpu/tpu_fit.sh, which makes it."
        )
    if done.returncode:
        raise RuntimeError(f"libtpu's compiler failed:\n{done.stderr[-5000:]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    if "unknown" in answer:
        raise UserError(
            f"--topology={topology} is not a TPU slice: {answer['unknown']}.\n"
            "Give a generation and its chips, such as v5e:2x4, v4:4x4x4, v5p:2x2x2 or v6e:4x4."
        )
    return answer


def largest_phase(config: Config, cores: int) -> tuple[Phase, int]:
    """Returns the phase with the recipe's largest batch on `cores` cores, and N.

    Raises:
      UserError: if the flags are invalid, or N is not known.
    """
    schedule, *_ = planned(dataclasses.replace(config, plan_replicas=cores, plan_hosts=1))
    phases = [ramp.first for ramp in ramps(schedule, layouts(config, schedule, cores))]
    return max(phases, key=lambda phase: phase.batch_size), schedule.examples


def search(
    candidates: Sequence[int], first: int, has: int, compiled: Callable[[int], dict[str, Any]]
) -> dict[int, dict[str, Any]]:
    """Compiles `first`, then other candidates until the largest that fits is known.

    The next candidate lies between the largest known to fit and the smallest known not to fit. It
    is the largest that would fit if all memory were proportional to the micro-batch.

    Args:
      candidates: micro-batch sizes, ascending.
      first: size to compile first.
      has: bytes of a core's memory.
      compiled: returns whether a size `fits`, and the bytes that it `needs`.

    Returns:
      The result of `compiled` for each size tried.
    """
    tried: dict[int, dict[str, Any]] = {}
    following: list[int] = [first]
    while following and len(tried) < _COMPILES:
        tried[following[-1]] = compiled(following[-1])
        fit = max((size for size in tried if tried[size]["fits"]), default=0)
        refused = min((size for size in tried if not tried[size]["fits"]), default=float("inf"))
        between = [size for size in candidates if fit < size < refused]
        near = int(fit or refused)
        following = [s for s in between if tried[near]["needs"] * s <= has * near] or between[:1]
    return tried


def settled(candidates: Sequence[int], tried: dict[int, dict[str, Any]]) -> bool:
    """Returns whether the candidate after the largest that fits was tried, or does not exist."""
    fit = max((size for size in tried if tried[size]["fits"]), default=0)
    following = next((size for size in candidates if size > fit), None)
    return following is None or following in tried


def row(size: int, result: dict[str, Any], has: int) -> str:
    """Describes one compilation."""
    memory = f"{result['needs'] / _GIB:.2f} of {has / _GIB:.2f} GiB a core"
    if not result["fits"]:
        return f"micro-batch {size}: does not fit: {memory}"
    names = ("arguments", "temporaries", "program")
    parts = ", ".join(f"{name} {result[name] / _GIB:.2f}" for name in names)
    cost = (
        f"{result['flops'] / 1e12:.3f} TFLOP, {result['bytes_accessed'] / 1e9:.2f} GB accessed, "
        f"{result['cycles'] / 1e6:.1f} Mcycles, {result['cycles'] / 1e6 / size:.3f} an example"
    )
    return f"micro-batch {size}: fits: {memory} ({parts})\n  one pass and the update: {cost}"


def collected(collectives: Sequence[dict[str, Any]]) -> str:
    """Describes the collectives of an update."""

    def words(group: list[dict[str, Any]]) -> str:
        if not group:
            return "none"
        kinds = " and ".join(sorted({collective["kind"] for collective in group}))
        size = sum(collective["bytes"] for collective in group)
        return f"{len(group)} × {kinds}, {size / 1e6:.1f} MB"

    looped, once = ([c for c in collectives if c["in_loop"] is loop] for loop in (True, False))
    return f"collectives: an update {words(once)}; within accumulation {words(looped)}"


def run(config: Config, topology: str | None) -> int:
    """Prints the compiler's results; returns the exit status.

    Raises:
      UserError: for a user's mistake.
    """
    if topology is None:
        raise UserError("--topology is missing.\nGive a TPU slice, such as --topology=v5e:2x4.")
    tpu = compiler(topology)
    cores, has = tpu["cores"], tpu["has"]
    phase, examples = largest_phase(config, cores)

    # Importing TensorFlow takes seconds, so the program checks the flags before.
    import tpu_fit_trace

    from trainer.system.memory import LESS
    from trainer.training.micro_batch_search import candidates

    data = tpu_fit_trace.training_data(config, examples)
    step = tpu_fit_trace.training_step(config, data, cores)
    first, share = phase.micro_batch_size, phase.batch_size // cores
    print(
        f"{config.model}, {'×'.join(map(str, data.image_shape))}, {config.precision}, "
        f"{config.optimizer}, ghost batches of {config.ghost_batch_size}\n"
        f"{topology}: {cores} cores ({tpu['kind']}), {has / _GIB:.2f} GiB each\n"
        f"largest batch {phase.batch_size:,} = {cores} cores × micro-batch {first} × "
        f"{phase.accumulation}",
        flush=True,
    )

    def compiled(size: int) -> dict[str, Any]:
        with tempfile.NamedTemporaryFile("w", suffix=".mlir") as module:
            module.write(tpu_fit_trace.lowered(step, size))
            module.flush()
            result = compiler(topology, module.name)
        print(row(size, result, has), flush=True)
        return result

    offered = sorted({first, *candidates(share, config.ghost_batch_size, share)})
    tried = search(offered, first, has, compiled)
    fit = max((size for size in tried if tried[size]["fits"]), default=None)
    if fit is None:
        print(f"no micro-batch was found that fits.\n{LESS}")
        return 1
    print(collected(tried[fit]["collectives"]))
    claim = "fits" if settled(offered, tried) else f"was found in {_COMPILES} compilations"
    print(f"largest micro-batch that {claim}: {fit}, of {', '.join(map(str, offered))}")
    return 0 if tried[first]["fits"] else 1


def main() -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument(
        "--topology", help="TPU slice: generation and chips, such as v5e:2x4, v4:4x4x4, v6e:4x4"
    )
    try:
        own, others = parser.parse_known_args()
        config = parse("plan", others)
        if config.precision == AUTO:
            config = dataclasses.replace(config, precision=BFLOAT16)
        return run(config, own.topology)
    except UserError as error:
        print(f"tpu_fit: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
