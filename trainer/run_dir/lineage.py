"""forked_from.json: from which run, and from which of its states, a run with --fork_from began."""

import dataclasses
import pathlib
from typing import Any

from trainer.buckets.url import parse
from trainer.config.flags import Config
from trainer.run_dir import metrics
from trainer.run_dir.bucket_connection import local_folder
from trainer.run_dir.directory import DamagedRunError
from trainer.system import typed_json
from trainer.system.atomic_file import write_json
from trainer.system.typed_json import DamagedError, fields, integer, list_of, number, text

FILE = "forked_from.json"

_SETTING = fields(
    {
        "batch_size": integer(1),
        "learning_rate": number(0),
        "momentum": number(0, 1),
        "noise_scale": number(0),
    }
)
_FIELDS = fields(
    {
        "fork_from": text,
        "run": text,
        "update": integer(),
        "position": integer(),
        "epoch": number(0),
        "flags": list_of(text),
        "before": _SETTING,
        "after": _SETTING,
        "evaluations": typed_json.table_of(metrics.POINT),
    },
    {"average_start": integer()},
)


@dataclasses.dataclass(frozen=True)
class Lineage:
    """Origin of a forked run, the child; the run that it began with is the parent.

    Attributes:
      fork_from: value of --fork_from.
      run: absolute path of the parent's run directory when the child began.
      update: number of updates of the parent at the fork.
      position: number of examples that the parent had consumed at the fork.
      epoch: `position` in the parent's epochs.
      flags: the parent's flags that the child takes over, as command-line arguments.
      before: batch_size, learning_rate, momentum and noise_scale of the parent's next update.
      after: the same for the child's first update.
      evaluations: the parent's last evaluations up to the fork, as in metrics.jsonl, by split.
      average_start: position at which the average of the parameters began; 0 without an average.
    """

    fork_from: str
    run: str
    update: int
    position: int
    epoch: float
    flags: list[str]
    before: dict[str, Any]
    after: dict[str, Any]
    evaluations: dict[str, dict[str, Any]]
    average_start: int = 0

    def as_json(self) -> dict[str, Any]:
        """Returns where the run began and what changed there, for plan's JSON."""
        names = ("run", "update", "position", "epoch", "before", "after")
        return {name: getattr(self, name) for name in names}

    def lines(self) -> list[str]:
        """Returns lines that tell where the run began, and what changed there."""
        changes = ", ".join(
            f"{name.replace('_', ' ')} {_change(self.before[name], self.after[name])}"
            for name in ("batch_size", "learning_rate", "momentum", "noise_scale")
        )
        first = f"begins with {self.run} at update {self.update}, epoch {self.epoch:.2f}: {changes}"
        ratio = self.after["noise_scale"] / self.before["noise_scale"]
        if abs(ratio - 1) <= 1e-9:
            return [first]
        return [
            first,
            f"the noise scale changes by a factor of {ratio:.4g} at the fork, which nothing "
            "compensates",
        ]


def _change(before: float, after: float) -> str:
    if abs(after - before) <= 1e-9 * abs(before):
        return f"{after:.6g}"
    return f"{before:.6g} → {after:.6g}"


def write(folder: pathlib.Path, lineage: Lineage) -> None:
    """Writes the forked_from.json of the run in `folder`."""
    write_json(folder / FILE, dataclasses.asdict(lineage))


def read(folder: pathlib.Path) -> Lineage | None:
    """Returns the lineage of the run in `folder`; None if it is not a fork.

    Raises:
      DamagedRunError: if the file cannot be read.
    """
    try:
        found = typed_json.read_existing(folder / FILE, _FIELDS)
    except (DamagedError, OSError) as error:
        raise DamagedRunError(
            f"{folder / FILE} {typed_json.problem(error)}.\nRestore it from a copy."
        ) from error
    names = [field.name for field in dataclasses.fields(Lineage)]
    return found and Lineage(**{name: found[name] for name in names if name in found})


def read_resumed(folder: pathlib.Path) -> Lineage:
    """Returns the lineage of a fork that resumes from its own checkpoints.

    Raises:
      DamagedRunError: if the file is missing or cannot be read. Without it, the average of the
        parameters would resume with another start.
    """
    found = read(folder)
    if found is None:
        raise DamagedRunError(
            f"{folder / FILE} is missing, and the fork cannot resume without it.\n"
            "Restore it from a copy."
        )
    return found


def of_child(config: Config) -> Lineage | None:
    """Returns the lineage of the run in --model_dir; None if it has not begun from --fork_from.

    Raises:
      DamagedRunError: if the file cannot be read.
    """
    if config.model_dir is None:
        return None
    url = parse(config.model_dir)
    folder = local_folder(url, config.cache_dir) if url else pathlib.Path(config.model_dir)
    found = read(folder)
    return found if found and found.fork_from == config.fork_from else None
