"""Reads one checkpoint of a run, which may be training meanwhile; writes nothing.

If a checkpoint disappears or is damaged, the choice is made again without this one.
"""

import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from trainer.errors import UserError
from trainer.run_dir.checkpoints import DAMAGED, Variables, first_line, found, read, update_of
from trainer.system.output import log

_NUMBER = re.compile("[0-9]{1,18}")  # The update of a checkpoint.


def load(
    folder: pathlib.Path, which: str, variables: Variables
) -> tuple[pathlib.Path, dict[str, Any]]:
    """Reads groups of variables from a checkpoint.

    Args:
      folder: folder of the run's checkpoints.
      which: newest, best, an update, or the path of a checkpoint.
      variables: the groups to read, all or some of those in the checkpoint.

    Returns:
      The path and the progress of the checkpoint.

    Raises:
      UserError: if the checkpoint does not exist, is damaged, or belongs to another model.
    """
    path, progress, damaged = _read_chosen(folder, which, variables)
    for other, error in damaged.items():
        if other.exists():  # Otherwise the run has deleted it.
            log(f"checkpoint {other} is damaged and left out: {first_line(error)}")
    return path, progress


def _read_chosen(
    folder: pathlib.Path, which: str, variables: Variables
) -> tuple[pathlib.Path, dict[str, Any], dict[pathlib.Path, Exception]]:
    """Returns the checkpoint's path, its progress, and the damaged checkpoints skipped."""
    damaged: dict[pathlib.Path, Exception] = {}
    while True:
        path = _choose(folder, which, damaged)
        try:
            return path, read(path, variables), damaged
        except DAMAGED as error:
            damaged[path] = error


def _choose(
    folder: pathlib.Path, which: str, damaged: Mapping[pathlib.Path, Exception]
) -> pathlib.Path:
    """Returns the newest checkpoint that `which` names and that is not in `damaged`."""
    existing = found(folder)
    if which == "newest":
        named = existing
    elif os.sep in which:
        named = [path for path in [pathlib.Path(which)] if path.is_dir()]
    else:
        update = (
            _best(folder) if which == "best" else int(which) if _NUMBER.fullmatch(which) else None
        )
        named = [path for path in existing if update_of(path) == update]
    whole = [path for path in named if path not in damaged]
    if whole:
        return whole[-1]
    others = dict.fromkeys(str(update_of(path)) for path in existing if path not in damaged)
    exist = f"checkpoints of updates {', '.join(others)} exist" if others else "no other exists"
    if named:
        raise UserError(
            f"checkpoint {named[-1]} is damaged: {first_line(damaged[named[-1]])}.\n"
            + (
                f"Name another with --checkpoint: {exist}."
                if others
                else "Restore it from a copy: the run has no other intact checkpoint."
            )
        )
    if not existing:
        raise UserError(f"{folder} holds no checkpoint: wait for the run's first evaluation.")
    raise UserError(
        f"--checkpoint={which} does not exist: {exist}.\n"
        "Name newest, best, an update, or the path of a checkpoint."
    )


def _best(folder: pathlib.Path) -> int | None:
    """Returns the update of the best evaluation, which the newest checkpoint records."""
    _, progress, _ = _read_chosen(folder, "newest", {})
    best = progress.get("best")
    return best and best["update"]
