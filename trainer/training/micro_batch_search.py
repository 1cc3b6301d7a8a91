"""Searches for the fastest micro-batch that fits in memory.

A micro-batch is the set of examples in one forward and backward pass of a replica. Its size does
not change what is learned, so the size may be chosen by measurement. The choice is kept in the run
directory, so that a resumed run computes with the same size.
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
from trainer.data.host_batches import begin
from trainer.distributed import hosts
from trainer.distributed.process_group import ProcessGroup
from trainer.distributed.replica_batches import ReplicaBatches
from trainer.distributed.strategy import on_cpu
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

# If a replica's share of a batch has at most this many examples, too few sizes divide it.
_FEW = 64
# Largest candidate on a CPU, in examples. Larger micro-batches overflow the caches of a CPU.
_MOST_ON_CPU = 256
# Least ratio of a candidate to the previous candidate. Every candidate costs seconds of tracing.
_GROWTH = 1.5
# The search ends if a candidate is less than this many times as fast as the previous candidate. A
# pass has a fixed cost, and a doubled size halves this cost per example. So all later doublings
# together gain only as much as the latest doubling. A smaller gain could be a measurement error.
_GAIN = 1.03
_SECONDS = 1.0  # Duration of a measurement.
# Fraction of the free memory that a candidate may use. The rest is for the update, evaluations,
# checkpoints and other processes.
_USABLE = 0.8

_KEPT = fields({"micro_batch_size": integer(1), "replicas": integer(1)})


@dataclasses.dataclass(frozen=True)
class Candidate:
    """A micro-batch size that was tried, its speed, and its peak memory (None if unknown)."""

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
    replicas: int,
) -> dict[int | None, int]:
    """Returns the largest micro-batch size of a replica, in examples, for each image size.

    The schedule, --micro_batch_size or --deterministic may determine this size. Otherwise, it is
    the fastest size that fits in memory. A key of the result is the side of the images in pixels,
    or None if the side does not change during the run.

    Args:
      config: flags of the run.
      path: run directory.
      schedule: schedule of the run.
      step: returns the training step to measure; called only if the search measures.
      batches: function (position, micro-batch size, image size) → micro-batches from position on.
      group: the processes that train together; only the chief, the first process, measures.
      before: memory in use before the model was built. TensorFlow may keep memory that it needed
        only to build the model. So a later value would not show how much a candidate takes.
      replicas: number of replicas over all processes.

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
    measured = functools.cache(step)  # All sizes share one step, which may take much memory.
    for size in sizes:
        if group.chief:
            if size:
                log(f"images of {size} pixels:")
            largest = choose(
                path / f"micro_batch{f'_{size}' if size else ''}.json",
                measured,
                functools.partial(batches, image_size=size),
                replicas=replicas,
                limits=schedule.limits,
                ghost_batch_size=config.ghost_batch_size,
                model=config.model,
                before=before,
                any_replicas=config.workers is not None,
            )
        _, (found[size],) = group.agree(False, largest)
    return found


def choose(
    path: pathlib.Path,
    step: Callable[[], TrainingStep],
    batches: Callable[[int, int], Iterator[Any]],
    *,
    replicas: int,
    limits: BatchLimits,
    ghost_batch_size: int,
    model: str,
    before: Sequence[memory.Use],
    any_replicas: bool = False,
) -> int:
    """Returns the micro-batch size that `path` holds, or else measures and saves the fastest size.

    Candidates divide a replica's share of the run's smallest batch. If this share has at most _FEW
    examples, the candidates divide a replica's share of the largest batch instead. A size that was
    measured with another number of replicas is only used if `any_replicas` is true. `step` is
    called only to measure.

    Raises:
      UserError: if `model` does not fit in memory.
    """
    smallest, largest = limits.smallest // replicas, limits.largest // replicas
    share = smallest if smallest > _FEW else largest
    try:
        kept = typed_json.read(path, _KEPT)
        size = int(kept["micro_batch_size"])
        same = kept["replicas"] == replicas and size <= largest
        if (any_replicas or same) and size >= ghost_batch_size:
            return size
    except FileNotFoundError:
        pass
    except DamagedError as error:
        log(f"{error}; it is measured again")
    measured = step()
    most = _MOST_ON_CPU if on_cpu(measured.strategy) else share
    tried, why = _search(
        measured, batches, candidates(share, ghost_batch_size, most), model, before
    )
    best = max(tried, key=lambda candidate: candidate.examples_per_second).micro_batch_size
    rows = [dataclasses.asdict(candidate) for candidate in tried]
    write_json(path, {"micro_batch_size": best, "replicas": replicas, "why": why, "tried": rows})
    log(f"micro-batch {best}: {why}")
    return best


def candidates(share: int, ghost_batch_size: int, most: int) -> list[int]:
    """Returns sizes from the ghost batch to `most` examples, in ascending order.

    Each size is at least 1.5 times the previous size. Each size is a multiple of the ghost batch,
    and divides `share`, a replica's part of a batch.
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
    """Tries `sizes` while they fit and get faster; returns the candidates, and why one is best."""
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
            rate = _rate(step, begin(batches(0, size)), size * len(devices))
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
    """Returns why the next candidate will probably not fit in memory; "" if it will probably fit.

    The next candidate has `ratio` times the size of the last candidate. The estimate is high,
    because it assumes that all memory grows with the size, except `fixed` bytes of variables.
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
    """Returns the speed of forward and backward passes of `examples` examples, in examples/s."""

    @tf.function(autograph=False)
    def accumulate(count: tf.Tensor) -> tf.Tensor:
        batches = ReplicaBatches(step.strategy, iterator, ahead=step.ahead)

        def once(_: tf.Tensor, loss: tf.Tensor, *carried: tf.Tensor) -> tuple[tf.Tensor, ...]:
            batch, following = batches.take(carried)
            losses = step.strategy.run(step.replica.accumulate, batch)
            # Only this process measures, so it reads only the local results.
            return tf.add_n(step.strategy.experimental_local_results(losses)), *following

        loss, *_ = repeat(count, once, tf.constant(0.0), *batches.carried(count))
        return loss

    with unwrap_user_errors():
        step.prepare(iterator)
        # The function is traced here, because a call that traces it may warn of frequent tracing.
        traced = accumulate.get_concrete_function(tf.TensorSpec([], tf.int32))

    def seconds(passes: int) -> float:
        """Runs `passes` passes, and returns their mean duration in seconds."""
        start = time.perf_counter()
        with hosts.on_first(step.strategy):
            traced(tf.constant(passes)).numpy()  # Waits for the device.
        return (time.perf_counter() - start) / passes

    seconds(1)  # Warms up.
    start = time.perf_counter()
    best = seconds(1)
    # Takes the fastest of several short calls, because other processes can only slow a call down.
    passes = max(1, int(_SECONDS / 10 / best))
    while time.perf_counter() - start + passes * best < _SECONDS:
        best = min(best, seconds(passes))
    return examples / best
