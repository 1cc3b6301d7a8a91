"""Checkpoints: parameters, moving statistics, optimizer slots and progress, whole or not at all.

Each is a folder `checkpoints/<update>` that tf.train.Checkpoint wrote under another name and that
was renamed when it was complete. TensorFlow keeps a checksum of every tensor and compares it on
reading.
"""

import hashlib
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import tensorflow as tf

from trainer.config import UserError

Variables = Mapping[str, Sequence[Any]]

# What TensorFlow's reader raises for files that are cut, flipped or missing.
_DAMAGED = (
    tf.errors.OpError,
    IndexError,
    RuntimeError,
)


class Checkpoints:
    """The newest `keep` checkpoints of some groups of variables, under `folder`."""

    def __init__(self, folder: pathlib.Path, variables: Variables, *, keep: int) -> None:
        self._folder = folder
        self._keep = keep
        self._newest: int | None = None
        self._progress = tf.Variable("", trainable=False, dtype=tf.string)
        # Lists, saved by their order: names of layers may differ from process to process.
        self._checkpoint = tf.train.Checkpoint(progress=self._progress, **variables)

    def save(self, update: int, progress: dict[str, Any]) -> None:
        """Writes the variables' values and `progress`, which JSON can hold, as of `update`."""
        if update == self._newest:
            return
        self._progress.assign(json.dumps(progress))
        temporary = self._folder / "incomplete"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        self._checkpoint.write(str(temporary / "checkpoint"))
        for path in (*temporary.iterdir(), temporary):
            _flush(path)
        temporary.rename(self._folder / f"{update:09d}")
        _flush(self._folder)
        self._newest = update
        for old in self._all()[: -self._keep]:
            shutil.rmtree(old)

    def restore(self, report: Callable[[str], None]) -> dict[str, Any] | None:
        """Reads the newest checkpoint that is whole, and returns its progress; None without one.

        What is damaged is told to `report`, put aside as `damaged-<update>`, and the one before it
        is read.

        Raises:
          UserError: where no checkpoint of several is whole, or they are of other variables.
        """
        found = self._all()
        for path in reversed(found):
            try:
                self._checkpoint.read(str(path / "checkpoint")).assert_consumed()
            except (AssertionError, ValueError) as error:
                raise UserError(
                    f"checkpoint {path} is of another model or optimizer: {_line(error)}.\n"
                    "Bring back the model that the run was started with, or name a new --model_dir."
                ) from error
            except _DAMAGED as error:
                report(f"checkpoint {path} is damaged and left out: {_line(error)}")
                path.rename(path.with_name(f"damaged-{path.name}"))
                continue
            self._newest = int(path.name)
            return json.loads(self._progress.numpy())
        if found:
            raise UserError(
                f"every checkpoint in {self._folder} is damaged.\n"
                "Restore one from a copy, or name a new --model_dir to begin anew."
            )
        return None

    def _all(self) -> list[pathlib.Path]:
        """Oldest first."""
        if not self._folder.exists():
            return []
        return sorted(path for path in self._folder.iterdir() if path.name.isdigit())


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _flush(path: pathlib.Path) -> None:
    """To the disk, so that a rename never comes before what it names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def digest(variables: Sequence[Any]) -> str:
    """SHA-256 over values, types and shapes of `variables`, in their order."""
    sha = hashlib.sha256()
    for variable in variables:
        array = variable.numpy()
        sha.update(f"{array.dtype.str}{array.shape}".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()
