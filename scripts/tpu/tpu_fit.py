"""Whether a recipe's update fits on a TPU slice: asks libtpu's own compiler, before one is rented.

    scripts/tpu/tpu_fit.sh --topology=v5e:2x4 --flagfile=flags/imagenet_resnet_50_smith.flags

The update of the recipe's largest batch, laid out as `plan` lays it out on the slice's cores, is
traced (tpu_fit_trace.py says what differs from a run's) and compiled (tpu_fit_compile.py). Then the
largest micro-batch that fits is looked for, among those that divide a core's share of that batch.
Nothing is run: what the compiler says of memory and collectives holds, its cycles are an estimate.
Near its limit the compiler computes anew what it cannot keep, so that the largest micro-batch may
not be the fastest: the cycles an example show it.

Exit status: 0 where the recipe's layout fits, 1 where it does not, 2 for a user's mistake.
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
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # TensorFlow's notes, and XLA's on each module.

from trainer.commands.plan import layouts, planned
from trainer.config.command_line import parse
from trainer.config.flags import Config
from trainer.errors import UserError
from trainer.schedule.plan import Phase, ramps

_COMPILER = pathlib.Path(__file__).parents[2] / ".venv-tpu-compiler/bin/python"
# Of a large network each takes minutes.
_COMPILES = 5
_GIB = 2**30


def compiler(topology: str, *module: str) -> dict[str, Any]:
    """What tpu_fit_compile.py prints.

    Raises:
      UserError: where its environment is missing, or the slice is none.
    """
    if not _COMPILER.exists():
        raise UserError(
            f"the compiler's environment is missing, {_COMPILER.parent.parent}.\n"
            "Run scripts/tpu/tpu_fit.sh, which makes it."
        )
    script = pathlib.Path(__file__).with_name("tpu_fit_compile.py")
    done = subprocess.run(
        [_COMPILER, script, topology, *module], capture_output=True, text=True, check=False
    )
    if "No module named" in done.stderr:
        raise UserError(
            f"the compiler's environment is not whole: {done.stderr.splitlines()[-1]}.\n"
            f"Remove {_COMPILER.parent.parent}, and run scripts/tpu/tpu_fit.sh, which makes it."
        )
    if done.returncode:
        raise RuntimeError(f"libtpu's compiler failed:\n{done.stderr[-5000:]}")
    answer: dict[str, Any] = json.loads(done.stdout)
    if "unknown" in answer:
        raise UserError(
            f"--topology={topology} is no TPU slice: {answer['unknown']}.\n"
            "Name a generation and its chips: v5e:2x4, v4:4x4x4, v5p:2x2x2, v6e:4x4."
        )
    return answer


def largest_phase(config: Config, cores: int) -> tuple[Phase, int]:
    """The phase of the recipe's largest batch on so many cores, and N.

    Raises:
      UserError: for flags that no run can have, or where N is not known.
    """
    schedule, *_ = planned(dataclasses.replace(config, plan_replicas=cores, plan_hosts=1))
    phases = [ramp.first for ramp in ramps(schedule, layouts(config, schedule, cores))]
    return max(phases, key=lambda phase: phase.batch_size), schedule.examples


def search(
    candidates: Sequence[int], first: int, has: int, compiled: Callable[[int], dict[str, Any]]
) -> dict[int, dict[str, Any]]:
    """What `compiled` says of `first`, and of others until the largest that fits is known.

    Of the `candidates` between the largest that fits and the smallest that does not, the next one
    is the largest that fits if memory grows with the examples; a part of it does not.
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
    """Whether a search went to its end: the next candidate does not fit, or there is none."""
    fit = max((size for size in tried if tried[size]["fits"]), default=0)
    following = next((size for size in candidates if size > fit), None)
    return following is None or following in tried


def row(size: int, found: dict[str, Any], has: int) -> str:
    """One compilation, in words."""
    of = f"{found['needs'] / _GIB:.2f} of {has / _GIB:.2f} GiB a core"
    if not found["fits"]:
        return f"micro-batch {size}: does not fit: {of}"
    parts = ", ".join(f"{n} {found[n] / _GIB:.2f}" for n in ("arguments", "temporaries", "program"))
    cost = (
        f"{found['flops'] / 1e12:.3f} TFLOP, {found['bytes_accessed'] / 1e9:.2f} GB accessed, "
        f"{found['cycles'] / 1e6:.1f} Mcycles, {found['cycles'] / 1e6 / size:.3f} an example"
    )
    return f"micro-batch {size}: fits: {of} ({parts})\n  one pass and the update: {cost}"


def collected(collectives: Sequence[dict[str, Any]]) -> str:
    """The collectives of an update, in words."""

    def words(some: list[dict[str, Any]]) -> str:
        if not some:
            return "none"
        kinds = " and ".join(sorted({collective["kind"] for collective in some}))
        return f"{len(some)} × {kinds}, {sum(one['bytes'] for one in some) / 1e6:.1f} MB"

    looped, once = ([c for c in collectives if c["in_loop"] is where] for where in (True, False))
    return f"collectives: an update {words(once)}; within accumulation {words(looped)}"


def run(config: Config, topology: str | None) -> int:
    """Prints what the compiler says; the exit status.

    Raises:
      UserError: for a user's mistake.
    """
    if topology is None:
        raise UserError("--topology is missing.\nName a TPU slice, such as --topology=v5e:2x4.")
    tpu = compiler(topology)
    cores, has = tpu["cores"], tpu["has"]
    phase, examples = largest_phase(config, cores)

    # Only now: TensorFlow takes seconds to import.
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
            found = compiler(topology, module.name)
        print(row(size, found, has), flush=True)
        return found

    offered = sorted({first, *candidates(share, config.ghost_batch_size, share)})
    tried = search(offered, first, has, compiled)
    fit = max((size for size in tried if tried[size]["fits"]), default=None)
    if fit is None:
        print(f"no micro-batch was found that fits.\n{LESS}")
        return 1
    print(collected(tried[fit]["collectives"]))
    found = "fits" if settled(offered, tried) else f"was found in {_COMPILES} compilations"
    print(f"largest micro-batch that {found}: {fit}, of {', '.join(map(str, offered))}")
    return 0 if tried[first]["fits"] else 1


def main() -> int:
    """The exit status."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument(
        "--topology", help="TPU slice: generation and chips, as v5e:2x4, v4:4x4x4, v6e:4x4"
    )
    try:
        asked, others = parser.parse_known_args()
        # --strategy=tpu has bfloat16.
        return run(parse("plan", others, kept=["--precision=bfloat16"]), asked.topology)
    except UserError as error:
        print(f"tpu_fit: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
