"""Searches for the fastest micro-batch that fits in memory.

The micro-batch does not change what is learned, so it may be chosen by measurement. The choice is
kept in the run directory, so that a resumed run computes with the same micro-batch.
"""

import contextlib
import dataclasses
import functools
import gc
import math
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from trainer.config import image_sizes
from trainer.config.flags import Config
from trainer.distributed.process_group import ProcessGroup
from trainer.distributed.strategy import next_per_replica, on_cpu
from trainer.errors import UserError
from trainer.nn.user_code import unwrap_user_errors
from trainer.schedule.layout import default_micro_batch_size, divisors
from trainer.schedule.realize import BatchLimits
from trainer.schedule.trajectory import Trajectory
from trainer.system import memory, typed_json
from trainer.system.atomic_file import write_json
from trainer.system.output import log
from trainer.system.typed_json import DamagedError, fields, integer
from trainer.training.graph_loop import repeat
from trainer.training.step import TrainingStep

# If a replica's share of the smallest batch has at most so many examples, candidates are too few.
_FEW = 64
# Larger micro-batches overflow the caches of a CPU.
_MOST_ON_CPU = 256
# Each candidate is at least this many times the one before, because each costs seconds of tracing.
_GROWTH = 1.5
# Least ratio of a candidate's speed to the fastest before; if it is smaller, the search ends. A
# doubling halves the fixed cost per example, so all further doublings together gain only as much as
# the last one. A smaller gain could also be measurement error.
_GAIN = 1.03
_SECONDS = 1.0  # Duration of a measurement.
# Fraction of the free memory that a candidate may use. The rest is for the update, evaluations,
# checkpoints and other processes.
_USABLE = 0.8

_KEPT = fields({"micro_batch_size": integer(1), "replicas": integer(1)})


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A size that was tried, its speed, and its peak memory in bytes (None if unknown)."""

    micro_batch_size: int
    examples_per_second: float
    peak_bytes: int | None


def from_config(
    config: Config,
    path: pathlib.Path,
    schedule: Trajectory,
    step: Callable[[], TrainingStep],
    batches: Callable[..., Iterator[Any]],
    group: ProcessGroup,
    before: Sequence[memory.Use],
) -> dict[int | None, int]:
    """Returns the largest micro-batch: the controller's, a flag's, a default, or the fastest.

    The result has one for each image size of the run; the size is None if it does not change.

    Args:
      config: flags of the run.
      path: run directory.
      schedule: schedule of the run.
      step: returns the step to measure, if one is measured.
      batches: function (position, micro-batch size, image size) → micro-batches from there.
      group: the processes that train together; the chief measures.
      before: memory in use before the model was built. TensorFlow may keep memory that building the
        model took and freed, so later use does not tell what a candidate takes.

    Raises:
      UserError: if the model does not fit in memory.
    """
    sizes: list[int | None] = [*dict.fromkeys(image_sizes.sizes(config.image_sizes))] or [None]
    largest = schedule.micro_batch_size or config.micro_batch_size
    if not largest and config.deterministic:
        largest = default_micro_batch_size(config.ghost_batch_size)
    if largest:
        return dict.fromkeys(sizes, largest)
    found: dict[int | None, int] = {}
    measured = step() if group.chief else None
    for size in sizes:
        if measured:
            if size:
                log(f"images of {size} pixels:")
            largest = choose(
                path / f"micro_batch{f'_{size}' if size else ''}.json",
                measured,
                functools.partial(batches, image_size=size),
                limits=schedule.limits,
                ghost_batch_size=config.ghost_batch_size,
                model=config.model,
                before=before,
            )
        _, (found[size],) = group.agree(False, largest)
    return found


def choose(
    path: pathlib.Path,
    step: TrainingStep,
    batches: Callable[[int, int], Iterator[Any]],
    *,
    limits: BatchLimits,
    ghost_batch_size: int,
    model: str,
    before: Sequence[memory.Use],
) -> int:
    """Returns the micro-batch size in the file `path`, or measures one and writes it there.

    Candidates divide a replica's share of the run's smallest batch. If that share has too few
    candidates, they divide the share of the largest batch.

    Raises:
      UserError: if `model` does not fit in memory.
    """
    replicas = step.strategy.num_replicas_in_sync
    smallest, largest = limits.smallest // replicas, limits.largest // replicas
    share = smallest if smallest > _FEW else largest
    try:
        kept = typed_json.read(path, _KEPT)
        if kept["replicas"] == replicas and ghost_batch_size <= kept["micro_batch_size"] <= largest:
            return int(kept["micro_batch_size"])
    except FileNotFoundError:
        pass
    except DamagedError as error:
        log(f"{error}; it is measured again")
    most = _MOST_ON_CPU if on_cpu(step.strategy) else share
    tried, why = _search(step, batches, candidates(share, ghost_batch_size, most), model, before)
    best = max(tried, key=lambda candidate: candidate.examples_per_second).micro_batch_size
    rows = [dataclasses.asdict(candidate) for candidate in tried]
    write_json(path, {"micro_batch_size": best, "replicas": replicas, "why": why, "tried": rows})
    log(f"micro-batch {best}: {why}")
    return best


def candidates(share: int, ghost_batch_size: int, most: int) -> list[int]:
    """Returns sizes from the ghost batch to `most` examples, each about twice the one before.

    Each size is a multiple of the ghost batch, and divides `share`, the examples of one replica.
    """
    sizes = [ghost_batch_size]
    for n in divisors(share // ghost_batch_size):
        if _GROWTH * sizes[-1] <= n * ghost_batch_size <= most:
            sizes.append(n * ghost_batch_size)
    return sizes


def _search(
    step: TrainingStep,
    batches: Callable[[int, int], Iterator[Any]],
    sizes: list[int],
    model: str,
    before: Sequence[memory.Use],
) -> tuple[list[Candidate], str]:
    """Tries `sizes` while they fit and are faster; returns the tried ones, and reasons as text."""
    devices = step.strategy.extended.worker_devices  # The local devices.
    after: Sequence[memory.Use] = []
    fixed = len(devices) * step.variable_bytes()
    tried: list[Candidate] = []
    fastest, end = 0.0, ""
    for size in sizes:
        ratio = size / tried[-1].micro_batch_size if tried else None
        if ratio and (shortage := _memory_shortage(before, after, ratio, fixed)):
            end = f"{size} was not tried: {shortage}"
            break
        memory.reset_peak_memory(devices)
        log(f"measuring a micro-batch of {size}")
        rate = None
        with contextlib.suppress(tf.errors.ResourceExhaustedError):
            rate = _rate(step, iter(batches(0, size)), size * len(devices))
        gc.collect()  # Frees the compiled function and its graph, which refer to each other.
        step.zero()
        if rate is None:
            end = f"{size} does not fit in memory"
            break
        after = memory.memory_usage(devices)
        tried.append(Candidate(size, rate, after[0].peak if after else None))
        if rate < _GAIN * fastest:
            break
        fastest = rate
    if not tried:
        free = min((use.limit - use.now for use in before), default=math.inf)
        where = f"the {_gigabytes(free)} of memory that are free" if free < math.inf else "memory"
        raise UserError(
            f"a micro-batch of {sizes[0]} examples does not fit in {where} with --model={model}.\n"
            + memory.LESS
        )
    compared = ", ".join(str(candidate.micro_batch_size) for candidate in tried)
    reasons = [f"fastest of {compared}"] if len(tried) > 1 else []
    return tried, "; ".join(
        [*reasons, end] if end else reasons or ["no other size divides the batches"]
    )


def _memory_shortage(
    before: Sequence[memory.Use], after: Sequence[memory.Use], ratio: float, fixed: int
) -> str:
    """Returns why `ratio` times the last candidate's size will hardly fit; "" if it is likely to.

    The estimate is high, because it assumes that all memory of a candidate grows with its size,
    except for `fixed` bytes of variables.
    """
    for start, use in zip(before, after, strict=True):
        grows, free = max(0, use.peak - start.now - fixed), use.limit - start.now
        needed = fixed + ratio * grows
        if needed > _USABLE * free:
            return f"it would take {_gigabytes(needed)} of the {_gigabytes(free)} that are free"
    return ""


def _gigabytes(size: float) -> str:
    return f"{size / 1e9:.1f} GB"


def _rate(step: TrainingStep, iterator: Iterator[Any], examples: int) -> float:
    """Returns the examples per second of forward and backward passes of `examples` examples."""

    @tf.function(autograph=False)
    def accumulate(count: tf.Tensor) -> tf.Tensor:
        def once(*_: tf.Tensor) -> tuple[tf.Tensor]:
            batch = next_per_replica(step.strategy, iterator)
            losses = step.strategy.run(step.replica.accumulate, batch)
            # Only this process measures, so it reads only the local results.
            return (tf.add_n(step.strategy.experimental_local_results(losses)),)

        (loss,) = repeat(count, once, tf.constant(0.0))
        return loss

    with unwrap_user_errors():
        step.prepare(iterator)
        # The function is traced here, because a call that traces it may warn of frequent tracing.
        traced = accumulate.get_concrete_function(tf.TensorSpec([], tf.int32))

    def seconds(passes: int) -> float:
        """Returns the seconds of one pass."""
        start = time.perf_counter()
        traced(tf.constant(passes)).numpy()  # Waits for the device.
        return (time.perf_counter() - start) / passes

    seconds(1)  # Warms up.
    start = time.perf_counter()
    best = seconds(1)
    # The fastest tenth of a second is the result, because other processes only slow passes down.
    passes = max(1, int(_SECONDS / 10 / best))
    while time.perf_counter() - start + passes * best < _SECONDS:
        best = min(best, seconds(passes))
    return examples / best
