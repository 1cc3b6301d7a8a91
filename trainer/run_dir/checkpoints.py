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

Variables = Mapping[str, Sequence[Any]]

# What TensorFlow's reader raises for files that are cut, flipped, missing or of other variables.
_DAMAGED = (tf.errors.OpError, IndexError, RuntimeError, ValueError, AssertionError)


class Checkpoints:
    """The newest `keep` checkpoints of some groups of variables, under `folder`."""

    def __init__(self, folder: pathlib.Path, variables: Variables, *, keep: int) -> None:
        self._folder = folder
        self._keep = keep
        self._progress = tf.Variable("", trainable=False, dtype=tf.string)
        # Lists, saved by their order: names of layers may differ from process to process.
        self._checkpoint = tf.train.Checkpoint(progress=self._progress, **variables)

    def save(self, update: int, progress: dict[str, Any]) -> None:
        """Writes the variables' values and `progress`, which JSON can hold, as of `update`."""
        self._progress.assign(json.dumps(progress))
        final = self._folder / f"{update:09d}"
        temporary = self._folder / "incomplete"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        self._checkpoint.write(str(temporary / "checkpoint"))
        for path in (*temporary.iterdir(), temporary):
            _flush(path)
        # A checkpoint of this update is there only where it was found damaged and gone past.
        shutil.rmtree(final, ignore_errors=True)
        temporary.rename(final)
        _flush(self._folder)
        for old in self._all()[: -self._keep]:
            shutil.rmtree(old)

    def restore(self, report: Callable[[str], None]) -> dict[str, Any] | None:
        """Reads the newest checkpoint that is whole, and returns its progress; None without one.

        What is damaged is told to `report`, and the one before it is read.
        """
        for path in reversed(self._all()):
            try:
                status = self._checkpoint.read(str(path / "checkpoint"))
                status.assert_existing_objects_matched()
            except _DAMAGED as error:
                reason = str(error).splitlines()[0]
                report(f"checkpoint {path} is damaged and left out: {reason}")
                continue
            return json.loads(self._progress.numpy())
        return None

    def _all(self) -> list[pathlib.Path]:
        """Oldest first."""
        if not self._folder.exists():
            return []
        return sorted(path for path in self._folder.iterdir() if path.name.isdigit())


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
