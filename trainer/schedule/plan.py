"""What a run will do, before it costs: its phases, counted by the code that trains."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence

from trainer.config.flags import Config
from trainer.schedule.layout import lay_out
from trainer.schedule.trajectory import Trajectory


@dataclasses.dataclass(frozen=True)
class Phase:
    """A maximal run of updates with one Setting; the field names are those of plan's JSON."""

    start_epoch: float
    start_update: int
    updates: int
    batch_size: int
    learning_rate: float
    momentum: float
    noise_scale: float
    micro_batch_size: int
    accumulation: int


def phases(
    trajectory: Trajectory, *, replicas: int, ghost_batch_size: int, micro_batch_size: int
) -> Iterator[Phase]:
    """The phases of `trajectory`, laid out with micro-batches of at most `micro_batch_size`.

    Raises:
      UserError: where a batch size cannot be laid out.
    """
    start_update = 0
    for setting, run in itertools.groupby(trajectory.updates(), key=lambda update: update[1]):
        positions = [position for position, _ in run]
        layout = lay_out(setting.batch_size, replicas, ghost_batch_size, micro_batch_size)
        yield Phase(
            start_epoch=positions[0] / trajectory.examples,
            start_update=start_update,
            updates=len(positions),
            batch_size=setting.batch_size,
            learning_rate=setting.learning_rate,
            momentum=setting.momentum,
            noise_scale=trajectory.noise_scale(setting),
            micro_batch_size=layout.micro_batch_size,
            accumulation=layout.accumulation,
        )
        start_update += len(positions)


def uncertain(config: Config) -> str:
    """What a plan has to say where a controller decides; empty where none does."""
    if config.anneal not in ("plateau", "measured"):
        return ""
    return f"--anneal={config.anneal} decides as it goes; this is the run if it never does:\n"


def table(
    found: Sequence[Phase], columns: Mapping[str, Callable[[Phase], str]] | None = None
) -> str:
    """The phases as aligned text; a ramp, phases of one update with one batch size, is one row.

    `columns` are further ones, of what has one value for all of a ramp, by their headers.
    """
    columns = columns or {}
    header = ("epoch", "update", "updates", "batch", "learning rate", "momentum", "noise scale")
    rows = [(*header, "layout", *columns)]
    for ramp in _ramps(found):
        first, last = ramp[0], ramp[-1]
        rows.append(
            (
                f"{first.start_epoch:.2f}",
                str(first.start_update),
                str(sum(phase.updates for phase in ramp)),
                str(first.batch_size),
                _span(first.learning_rate, last.learning_rate),
                f"{first.momentum:g}",
                _span(first.noise_scale, last.noise_scale),
                f"{first.micro_batch_size} × {first.accumulation}",
                *(column(first) for column in columns.values()),
            )
        )
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(c.rjust(w) for c, w in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(lines)


def _ramps(found: Sequence[Phase]) -> list[list[Phase]]:
    """Runs of phases of one update each, whose rate only rises or only falls; others alone."""

    def rises(a: Phase, b: Phase) -> bool:
        return b.learning_rate > a.learning_rate

    def joins(ramp: list[Phase], b: Phase) -> bool:
        a = ramp[-1]
        same = (a.batch_size, a.momentum) == (b.batch_size, b.momentum)
        turns = len(ramp) > 1 and rises(*ramp[-2:]) != rises(a, b)
        return same and a.updates == b.updates == 1 and not turns

    ramps: list[list[Phase]] = []
    for phase in found:
        if ramps and joins(ramps[-1], phase):
            ramps[-1].append(phase)
        else:
            ramps.append([phase])
    return ramps


def _span(first: float, last: float) -> str:
    return f"{first:.4g}" if f"{first:.4g}" == f"{last:.4g}" else f"{first:.4g} → {last:.4g}"
