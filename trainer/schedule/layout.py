"""Layout of one batch on the devices: batch size = replicas × micro-batch × accumulation.

For an update, each replica sums the gradients of `accumulation` micro-batches. The layout affects
only the speed: apart from rounding, it changes neither the results of training nor the sequence of
batch sizes. The exception is --anneal=measured, which compares the gradients of micro-batches with
the gradients of batches to choose the batch sizes. With this flag, the micro-batch size does not
change during a run, except if --max_batch_size is not a multiple of it: the largest batch then has
smaller micro-batches. They do not matter, because the batch does not grow any further.
"""

import dataclasses
import math

from trainer.errors import UserError


@dataclasses.dataclass(frozen=True)
class Layout:
    """Layout of a batch: each replica computes `accumulation` micro-batches for an update."""

    replicas: int
    micro_batch_size: int
    accumulation: int


def lay_out(batch_size: int, replicas: int, ghost_batch_size: int, most: int) -> Layout:
    """Returns the layout of B = `batch_size` with the largest micro-batch that fits.

    A ghost batch is a group of examples that share batch-norm statistics. The micro-batch size is
    the largest divisor of B / replicas that is a multiple of the ghost batch and at most `most`.

    Raises:
      UserError: if replicas × ghost batch does not divide B, or `most` is below the ghost batch.
    """
    check_divides(f"batch size {batch_size}", batch_size, replicas, ghost_batch_size)
    if most < ghost_batch_size:
        raise UserError(
            f"--micro_batch_size={most} is below --ghost_batch_size={ghost_batch_size}: "
            f"raise --micro_batch_size to {ghost_batch_size}, since a micro-batch holds whole "
            "ghost batches."
        )
    ghosts = batch_size // (replicas * ghost_batch_size)
    fit = next(n for n in range(min(ghosts, most // ghost_batch_size), 0, -1) if ghosts % n == 0)
    return Layout(replicas, fit * ghost_batch_size, ghosts // fit)


def default_micro_batch_size(ghost_batch_size: int) -> int:
    """Returns the largest micro-batch, in examples, if the run neither sets nor measures a size."""
    return max(128, ghost_batch_size)  # wide_resnet_10_1 on two cores is fastest at 128.


def check_divides(
    what: str,
    batch_size: int,
    replicas: int,
    ghost_batch_size: int,
    *others: int,
    remedy: str | None = None,
) -> None:
    """Checks that replicas × ghost batch divides the batch size.

    Args:
      what: name and value of the batch size, for the error.
      batch_size: batch size, in examples.
      replicas: number of replicas.
      ghost_batch_size: examples in a ghost batch.
      others: the run's other batch sizes.
      remedy: beginning of the remedy; None if the user can choose the batch size.

    Raises:
      UserError: if the product does not divide the batch size. Unless `remedy` is given, the
        message proposes the nearest batch sizes. It also proposes the numbers of replicas that fit
        this batch size and `others`.
    """
    unit = replicas * ghost_batch_size
    if batch_size % unit == 0:
        return
    below = batch_size // unit * unit
    if remedy is None:
        remedy = f"Use a batch of {f'{below} or {below + unit}' if below else unit}"
    if not below and batch_size % replicas == 0:
        remedy += f", or --ghost_batch_size={batch_size // replicas}"
    shared = math.gcd(batch_size, *others)
    if shared % ghost_batch_size == 0:
        counts = ", ".join(map(str, divisors(shared // ghost_batch_size)))
        remedy += f", or one of {counts} replicas" if "," in counts else ", or one replica"
    devices = "1 replica" if replicas == 1 else f"{replicas} replicas"
    raise UserError(
        f"{what} is not a multiple of {devices} × ghost batch {ghost_batch_size} = {unit}.\n"
        f"{remedy}."
    )


def divisors(n: int) -> list[int]:
    """Returns all divisors of n in ascending order."""
    low = [d for d in range(1, math.isqrt(n) + 1) if n % d == 0]
    return low + [n // d for d in reversed(low) if d * d != n]
