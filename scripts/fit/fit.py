"""Computes by a device's compiler whether a recipe's update fits on devices that are not here.

It traces the update of the recipe's largest batch, which is laid out on the devices as by `plan`
(trace.py lists the differences from a run). The compiler of the device compiles the update, in an
environment of its own. Then the program searches for the largest micro-batch that fits, among those
that divide a device's share of the batch. It does not execute the update.
"""

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
from trainer.config.model_flags import AUTO, BFLOAT16, FLOAT32
from trainer.errors import UserError
from trainer.schedule.plan import Phase, ramps

_ROOT = pathlib.Path(__file__).parents[2]
_COMPILES = 5  # Most compilations; each takes minutes for a large network.
_GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Compiler:
    """Compiler for one kind of devices.

    Attributes:
      environment: folder of its Python environment, in the checkout.
      script: script that makes the environment.
      module: module that compiles; its docstring says what it prints.
      target: the devices, as `module` takes them.
      remedy: what to do if `module` does not know the target.
      unit: word for one device.
      notes: function from the result of `module` and the micro-batch size to lines of text.
    """

    environment: str
    script: str
    module: str
    target: str
    remedy: str
    unit: str
    notes: Callable[[dict[str, Any], int], list[str]]

    @property
    def python(self) -> pathlib.Path:
        """Interpreter of the environment."""
        return _ROOT / self.environment / "bin/python"

    def run(self, *update: str) -> dict[str, Any]:
        """Describes the target, or compiles the file `update`; returns the object that it prints.

        Raises:
          UserError: if the compiler's environment is not complete, or the target is not known.
        """
        if not self.python.exists():
            raise UserError(
                f"the compiler's environment {_ROOT / self.environment} is missing.\n"
                f"Run {self.script}, which makes it."
            )
        done = subprocess.run(
            [self.python, "-m", self.module, self.target, *update],
            cwd=_ROOT,
            capture_output=True,
            text=True,
            check=False,
        )
        if "No module named" in done.stderr:
            raise UserError(
                f"the compiler's environment is incomplete: {done.stderr.splitlines()[-1]}.\n"
                f"Remove {_ROOT / self.environment}, and run {self.script}, which makes it."
            )
        if done.returncode:
            raise RuntimeError(f"the compiler failed:\n{done.stderr[-5000:]}")
        answer: dict[str, Any] = json.loads(done.stdout)
        if "unknown" in answer:
            raise UserError(f"{self.target} is not known: {answer['unknown']}.\n{self.remedy}")
        return answer


def largest_phase(config: Config, devices: int) -> tuple[Phase, int]:
    """Returns the phase with the recipe's largest batch on `devices` devices, and N.

    Raises:
      UserError: if the flags are invalid, or N is not known.
    """
    schedule, *_ = planned(dataclasses.replace(config, plan_replicas=devices, plan_hosts=1))
    phases = [ramp.first for ramp in ramps(schedule, layouts(config, schedule, devices))]
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
      has: bytes of a device's memory.
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


def row(size: int, result: dict[str, Any], has: int, unit: str) -> str:
    """Describes one compilation."""
    memory = f"{result['needs'] / _GIB:.2f} of {has / _GIB:.2f} GiB a {unit}"
    if not result["fits"]:
        return f"micro-batch {size}: does not fit: {memory}"
    names = ("arguments", "temporaries", "program")
    parts = ", ".join(f"{name} {result[name] / _GIB:.2f}" for name in names)
    return f"micro-batch {size}: fits: {memory} ({parts})"


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


def run(config: Config, compiler: Compiler) -> int:
    """Prints the compiler's results; returns the exit status.

    Raises:
      UserError: for a user's mistake.
    """
    described = compiler.run()
    devices, has, unit = described["devices"], described["has"], compiler.unit
    phase, examples = largest_phase(config, devices)

    # Importing TensorFlow takes seconds, so the program checks the flags before.
    from scripts.fit import trace
    from trainer.system.memory import LESS
    from trainer.training.micro_batch_search import candidates

    data = trace.training_data(config, examples)
    step = trace.training_step(config, data, devices)
    first, share = phase.micro_batch_size, phase.batch_size // devices
    print(
        f"{config.model}, {'×'.join(map(str, data.image_shape))}, {config.precision}, "
        f"{config.optimizer}, ghost batches of {config.ghost_batch_size}\n"
        f"{compiler.target}: {devices} {unit}s ({described['kind']}), {has / _GIB:.2f} GiB each\n"
        f"largest batch {phase.batch_size:,} = {devices} {unit}s × micro-batch {first} × "
        f"{phase.accumulation}",
        flush=True,
    )

    if left_out := trace.left_out(config):
        print(f"the compiled update is without {', '.join(left_out)}", flush=True)

    def compiled(size: int) -> dict[str, Any]:
        with tempfile.NamedTemporaryFile("w", suffix=".mlir") as module:
            module.write(trace.lowered(step, size))
            module.flush()
            result = compiler.run(module.name)
        notes = compiler.notes(result, size) if result["fits"] else []
        print("\n  ".join([row(size, result, has, unit), *notes]), flush=True)
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


def recipe(flags: Sequence[str]) -> Config:
    """Returns the Config of a recipe, with the precision that a new run has on the devices.

    Raises:
      UserError: if the flags are wrong.
    """
    config = parse("plan", flags)
    if config.precision != AUTO:
        return config
    return dataclasses.replace(config, precision=FLOAT32 if config.deterministic else BFLOAT16)


def main(name: str, flags: Sequence[str], compiler: Callable[[], Compiler]) -> int:
    """Runs the tool `name` with the flags of `plan`; returns the exit status.

    `compiler` returns the compiler, or raises UserError.
    """
    try:
        return run(recipe(flags), compiler())
    except UserError as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 2
