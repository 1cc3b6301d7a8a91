"""Describes which checkpoint a command takes, and which evaluation of the run was the best."""

import pathlib
from typing import Any

from trainer.errors import UserError
from trainer.run_dir import checkpoint_reader
from trainer.run_dir.checkpoint_names import found
from trainer.run_dir.checkpoints import read
from trainer.run_dir.exports import ExportInfo

_PARAMETERS = {"plain": "the plain parameters", "ema": "the average"}


def best(folder: pathlib.Path, path: pathlib.Path) -> dict[str, Any] | None:
    """Returns top1 and update of a run's best evaluation; None if the run has not evaluated yet.

    Args:
      folder: folder of the run's checkpoints; the newest intact checkpoint records the evaluation.
      path: an intact checkpoint of the run, possibly a copy in another folder. It is read if
        `folder` has no intact checkpoint.
    """
    try:
        progress = checkpoint_reader.newest_progress(folder)
    except UserError:
        progress = read(path, {})
    return progress.get("best")


def describe_run(
    folder: pathlib.Path,
    path: pathlib.Path,
    update: int,
    best: dict[str, Any] | None,
    evaluated_with: str | None = None,
) -> str:
    """Returns a line about the checkpoint that a command takes, and about the best evaluation.

    Args:
      folder: folder of the run's checkpoints.
      path: path of the checkpoint.
      update: update of the checkpoint.
      best: the run's best evaluation; None if the run has not evaluated yet.
      evaluated_with: "ema" if the command takes the average of the parameters, "plain" if it takes
        the parameters themselves. None if the run has no average.
    """
    newest = ", the newest" if found(folder)[-1:] == [path] else ""
    part = f"{_PARAMETERS[evaluated_with]} in " if evaluated_with else ""
    line = f"takes {part}{path}{newest}"
    if best is None:
        return f"{line}; the run has not evaluated yet"
    if best["update"] == update:
        return f"{line}; it has the best evaluation{_of(best)}, top1 {best['top1']:.4f}"
    return f"{line}; {_elsewhere(best)}, which --checkpoint=best takes"


def describe_export(path: pathlib.Path, about: ExportInfo) -> str:
    """Returns a line about the checkpoint in the export `path`, and about the best evaluation."""
    part = f"{_PARAMETERS[about.evaluated_with]} of " if about.evaluated_with else ""
    line = f"takes {path}, which holds {part}update {about.update}"
    if about.best is None:
        return line
    if about.best["update"] == about.update:
        had = f"it had the best evaluation{_of(about.best)}"
        return f"{line}; {had}, top1 {about.best['top1']:.4f}"
    return f"{line}; {_elsewhere(about.best)}"


def _elsewhere(best: dict[str, Any]) -> str:
    of = _of(best)
    return f"the best evaluation{of} has top1 {best['top1']:.4f}, at update {best['update']}"


def _of(best: dict[str, Any]) -> str:
    """Returns " of " and the name of the evaluated parameters; "" if the run has no average."""
    counts = best.get("evaluated_with")
    return f" of {_PARAMETERS[counts]}" if counts else ""
