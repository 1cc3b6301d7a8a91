"""Reads one checkpoint of a run that may still be training; writes nothing.

If the newest checkpoint is damaged, or the run deletes it meanwhile, the next older one is read. If
the user names the best checkpoint, an update or a path, only checkpoints that match are tried.
"""

import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any

from trainer.errors import UserError
from trainer.run_dir import training_data as run_data
from trainer.run_dir.checkpoint_names import found, update_of
from trainer.run_dir.checkpoints import DamagedCheckpointError, Variables, first_line, read
from trainer.run_dir.training_data import TrainingData
from trainer.system.output import log
from trainer.system.typed_json import WrongError


def load(
    folder: pathlib.Path, which: str, variables: Variables
) -> tuple[pathlib.Path, dict[str, Any]]:
    """Reads groups of variables from a checkpoint in `folder`; returns its path and progress.

    Args:
      folder: folder of the run's checkpoints.
      which: newest, best, an update, or the path of a checkpoint.
      variables: groups of variables to read, by name. The checkpoint may have other groups too.

    Raises:
      UserError: if the checkpoint does not exist, is damaged, or belongs to another model.
    """
    path, progress, damaged = _read_chosen(folder, which, variables)
    for other, error in damaged.items():
        if other.exists():  # If the run has deleted it, nothing is wrong.
            log(f"checkpoint {other} is damaged and left out: {first_line(error)}")
    return path, progress


def newest_progress(folder: pathlib.Path) -> dict[str, Any]:
    """Returns the progress in the newest intact checkpoint in `folder`.

    Raises:
      UserError: if `folder` has no intact checkpoint.
    """
    _, progress, _ = _read_chosen(folder, "newest", {})
    return progress


def training_data(folder: pathlib.Path) -> TrainingData | None:
    """Returns the properties of a run's training data; None if the run keeps no properties.

    They are read from training_data.json, or, if this file is missing, from the newest checkpoint.

    Raises:
      UserError: if the file or the checkpoint cannot be read.
    """
    kept = run_data.read(folder)
    if kept is not None or not found(folder / "checkpoints"):
        return kept
    progress = newest_progress(folder / "checkpoints")
    learned = progress.get("training_data")  # Checkpoints by old versions lack it.
    try:
        return run_data.from_json(learned) if learned else None
    except WrongError as error:
        raise UserError(
            f"the newest checkpoint of {folder} has training data that this version cannot read: "
            f"{error}.\nUse the version that wrote it."
        ) from error


def _read_chosen(
    folder: pathlib.Path, which: str, variables: Variables
) -> tuple[pathlib.Path, dict[str, Any], dict[pathlib.Path, Exception]]:
    """Returns the chosen checkpoint's path and progress, and errors of damaged checkpoints."""
    damaged: dict[pathlib.Path, Exception] = {}
    while True:
        path = _choose(folder, which, damaged)
        try:
            return path, read(path, variables), damaged
        except (DamagedCheckpointError, OSError) as error:
            damaged[path] = error  # On NFS, a deleted file is a stale handle.


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
        update = int(which) if re.fullmatch("[0-9]{1,18}", which) else None
        if which == "best":
            update = _best(folder)
        named = [path for path in existing if update_of(path) == update]
    whole = [path for path in named if path not in damaged]
    if whole:
        return whole[-1]
    others = dict.fromkeys(str(update_of(path)) for path in existing if path not in damaged)
    exist = f"checkpoints of updates {', '.join(others)} exist" if others else "no other exists"
    if named:
        remedy = "Restore it from a copy: the run has no other intact checkpoint."
        if others:
            remedy = f"Name another with --checkpoint: {exist}."
        reason = first_line(damaged[named[-1]])
        raise UserError(f"checkpoint {named[-1]} is damaged: {reason}.\n{remedy}")
    if not existing:
        raise UserError(f"{folder} holds no checkpoint: wait for the run's first evaluation.")
    raise UserError(
        f"--checkpoint={which} does not exist: {exist}.\n"
        "Name newest, best, an update, or the path of a checkpoint."
    )


def _best(folder: pathlib.Path) -> int | None:
    """Returns the update with the best evaluation, which the newest checkpoint records."""
    best = newest_progress(folder).get("best")
    return best and best["update"]
