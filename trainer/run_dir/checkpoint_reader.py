"""The weights of one checkpoint, for who only reads: the run may be training meanwhile.

Nothing is written. A checkpoint that the run deletes while it is read is none, and the choice is
made again.
"""

import os
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

from trainer.errors import UserError
from trainer.run_dir.checkpoints import DAMAGED, Variables, first_line, found, read, update_of

_NUMBER = re.compile("[0-9]{1,18}")  # the update of a checkpoint


def load(
    folder: pathlib.Path, which: str, variables: Variables, report: Callable[[str], None]
) -> tuple[pathlib.Path, dict[str, Any]]:
    """Reads some groups of variables from a checkpoint; returns its path and its progress.

    Args:
      folder: of the run's checkpoints.
      which: newest, best, an update, or the path of a checkpoint.
      variables: a checkpoint's groups, all or some.
      report: told of what is damaged and newer than the newest whole one.

    Raises:
      UserError: where there is none, or it is damaged or of another model.
    """
    damaged: dict[pathlib.Path, Exception] = {}
    while True:
        path = _choose(folder, which, damaged)
        try:
            progress = read(path, variables)
        except DAMAGED as error:
            damaged[path] = error
            continue
        for other, reason in damaged.items():
            if other.exists():  # Or the run has deleted it.
                report(f"checkpoint {other} is damaged and left out: {first_line(reason)}")
        return path, progress


def _choose(
    folder: pathlib.Path, which: str, damaged: Mapping[pathlib.Path, Exception]
) -> pathlib.Path:
    """The last of those that `which` names and that are not damaged."""
    there = found(folder)
    if which == "newest":
        named = there
    elif os.sep in which:
        named = [path for path in [pathlib.Path(which)] if path.is_dir()]
    else:
        update = (
            _best(folder) if which == "best" else int(which) if _NUMBER.fullmatch(which) else None
        )
        named = [path for path in there if update_of(path) == update]
    whole = [path for path in named if path not in damaged]
    if whole:
        return whole[-1]
    others = dict.fromkeys(str(update_of(path)) for path in there if path not in damaged)
    there_are = f"those of updates {', '.join(others)} are there" if others else "there is no other"
    if named:
        raise UserError(
            f"checkpoint {named[-1]} is damaged: {first_line(damaged[named[-1]])}.\n"
            + (f"Name another with --checkpoint: {there_are}." if others else "No other is whole.")
        )
    if not there:
        raise UserError(f"{folder} holds no checkpoint: wait for the run's first evaluation.")
    raise UserError(
        f"--checkpoint={which} is none: {there_are}.\n"
        "It is newest, best, an update, or the path of a checkpoint."
    )


def _best(folder: pathlib.Path) -> int | None:
    """The update of the best evaluation, as the newest checkpoint has it."""
    _, progress = load(folder, "newest", {}, lambda _: None)
    best = progress.get("best")
    return best and best["update"]
