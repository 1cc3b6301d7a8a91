"""Checkpoints: parameters, moving statistics, optimizer slots and progress, whole or not at all.

Each is a folder `checkpoints/<update>` that tf.train.Checkpoint wrote under another name, from a
thread of its own and from copies, and that was renamed when it was complete. A later one of the
same update, after an evaluation, is `<update>.1`. TensorFlow keeps a
checksum of every tensor and compares it on reading.
"""

import hashlib
import json
import os
import pathlib
import re
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.errors import UserError
from trainer.run_dir.checkpoint_progress import PROGRESS
from trainer.run_dir.literal_path import named, plain
from trainer.system import typed_json
from trainer.system.atomic_file import move_atomic, remove

Variables = Mapping[str, Sequence[Any]]

# What TensorFlow's reader raises for files that are cut, flipped or missing, and ours for a
# progress that is not one.
DAMAGED = (
    tf.errors.OpError,
    IndexError,
    RuntimeError,
    OSError,
    typed_json.WrongError,
)
# The names of checkpoints; all others in their folder are somebody else's.
_NAME = re.compile(r"[0-9]{9,18}(\.[0-9]{1,9})?")
# How tf.train.Checkpoint names a variable's value.
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
# Beyond the tensors themselves: names, shapes, and what the log writes meanwhile.
_SPARE_BYTES = 2**20


class Checkpoints:
    """The newest `keep` checkpoints of some groups of variables, and the best one, under `folder`.

    Args:
      folder: made when it is needed.
      variables: groups of variables, each saved by its order: names of layers may differ from
        process to process.
      keep: how many of the newest.
      report: told of what is damaged, and of what cannot be written.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        variables: Variables,
        *,
        keep: int,
        report: Callable[[str], None],
    ) -> None:
        self._folder = folder
        self._keep = keep
        self._report = report
        self._variables = variables
        self._newest: int | None = None
        self._newest_progress = ""
        self._writer: threading.Thread | None = None

    def save(self, update: int, progress: Mapping[str, Any], best: int | None = None) -> None:
        """Copies the variables' values, and writes them and `progress` in the background.

        Args:
          update: that the values are of.
          progress: what JSON can hold.
          best: the update of the checkpoint that is kept besides the newest.
        """
        self.wait()
        text = json.dumps(progress)
        if (update, text) == (self._newest, self._newest_progress):
            return
        copies = {name: [v.numpy() for v in group] for name, group in self._variables.items()}
        # A daemon: a process that has to leave at once does not wait for it, and what is
        # incomplete harms nobody.
        writer = threading.Thread(
            target=self._write, args=(update, copies, text, best), daemon=True
        )
        try:
            writer.start()
        except RuntimeError as error:  # No thread may be started: it is written now.
            self._report(f"{error}; the run waits for its checkpoint")
            self._write(update, copies, text, best)
            return
        self._writer = writer

    def wait(self) -> int | None:
        """Waits for what is being written; returns the update of the newest whole checkpoint."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        return self._newest

    def _write(
        self, update: int, copies: dict[str, list[np.ndarray]], progress: str, best: int | None
    ) -> None:
        temporary = self._folder / "incomplete"
        try:
            if os.path.lexists(temporary) and not temporary.is_dir():
                self._report(f"{temporary} is not a folder; it is now {_put_aside(temporary)}")
            remove(temporary)
            temporary.mkdir(parents=True)
            needed = sum(copy.nbytes for group in copies.values() for copy in group) + _SPARE_BYTES
            free = shutil.disk_usage(temporary).free
            if free < needed:
                raise OSError(f"it needs {needed:,} bytes and {free:,} are free")
            with tf.device("CPU:0"):
                groups = {name: [tf.Variable(c) for c in group] for name, group in copies.items()}
                text = tf.Variable(progress, dtype=tf.string)
            tf.train.Checkpoint(progress=text, **groups).write(str(temporary / "checkpoint"))
            move_atomic(temporary, self._unused(update))
        except (OSError, RuntimeError, MemoryError, tf.errors.OpError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            newest = (
                "there is none yet" if self._newest is None else f"{self._newest} is the newest"
            )
            self._report(
                f"the checkpoint of update {update} cannot be written: {first_line(error)};\n"
                f"{newest}. The run goes on and tries again at the next interval."
            )
            return
        self._newest, self._newest_progress = update, progress
        others = found(self._folder)[:-1]
        updates = sorted({update, *map(update_of, others)})
        kept = {*updates[-self._keep :], best} - {update}
        for old in others:
            if update_of(old) not in kept:
                remove(old)

    def restore(self) -> dict[str, Any] | None:
        """Reads the newest checkpoint that is whole, and returns its progress; None without one.

        What is damaged is reported, put aside as `damaged-<update>`, and the one before it is read.

        Raises:
          UserError: where no checkpoint of several is whole, they are of other variables, or their
            folder cannot be read.
        """
        there, damaged = found(self._folder), []
        for path in reversed(there):
            try:
                progress = read(path, self._variables)
            except DAMAGED as error:
                self._report(f"checkpoint {path} is damaged and left out: {first_line(error)}")
                damaged.append(path)
                continue
            for other in damaged:
                _put_aside(other)
            self._newest, self._newest_progress = update_of(path), json.dumps(progress)
            return progress
        if there:
            raise UserError(
                f"every checkpoint in {self._folder} is damaged.\n"
                "Restore one from a copy, or name a new --model_dir to begin anew."
            )
        return None

    def _unused(self, update: int) -> pathlib.Path:
        """A name that is not there yet, the last in order of those of `update`."""
        numbers = [path.suffix for path in found(self._folder) if update_of(path) == update]
        if not numbers:
            return self._folder / f"{update:09d}"
        return self._folder / f"{update:09d}.{int(numbers[-1].lstrip('.') or 0) + 1}"


class NoCheckpoints(Checkpoints):
    """Those of a process that leaves them to another one."""

    def __init__(self) -> None:
        self._newest: int | None = None

    def save(self, update: int, progress: Mapping[str, Any], best: int | None = None) -> None:
        """Counts it as saved."""
        self._newest = update

    def wait(self) -> int | None:
        """The update of the newest."""
        return self._newest

    def restore(self) -> None:
        """There is nothing."""


def found(folder: pathlib.Path) -> list[pathlib.Path]:
    """The checkpoints in `folder`, oldest first; what has such a name and is not one is damaged.

    Raises:
      UserError: the folder cannot be read.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(
            f"{folder} cannot be read: {error.strerror}.\n"
            "Put the run's folder of checkpoints in its place, or move away what is there."
        ) from error
    paths = [folder / name for name in names if _NAME.fullmatch(name)]
    return sorted(paths, key=lambda path: tuple(map(int, path.name.split("."))))


def _put_aside(path: pathlib.Path) -> str:
    """Renames what is damaged to damaged-<name>, in place of an earlier one; returns that name."""
    aside = path.with_name(f"damaged-{path.name}")
    remove(aside)
    path.rename(aside)
    return aside.name


def update_of(path: pathlib.Path) -> int:
    """The update that a checkpoint is of."""
    return int(path.stem)


def read(path: pathlib.Path, variables: Variables) -> dict[str, Any]:
    """Reads some groups of variables, or all, from the checkpoint at `path`; returns its progress.

    Raises:
      UserError: where it holds others in one of the groups.
      DAMAGED: where it is not whole.
    """
    try:
        with plain(path) as readable:
            return _read(readable, path, variables)
    except DAMAGED as error:  # Of a path that names nothing outside of this process.
        said = str(error)
        if isinstance(error, OSError) and error.filename:
            said = f"{error.filename}: {error.strerror}"
        raise RuntimeError(named(said, path)) from error


def _read(readable: str, path: pathlib.Path, variables: Variables) -> dict[str, Any]:
    """As `read`, the checkpoint at `path` by a path that TensorFlow takes as it is."""
    # tf.train.Checkpoint's own reading warns of what is left out.
    try:
        reader = tf.train.load_checkpoint(f"{readable}/checkpoint")
        names = reader.get_variable_to_shape_map()
        reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH")  # Not used; compared with its checksum.
        for group, ours in variables.items():
            saved = sum(name.startswith(f"{group}/") for name in names)
            if saved != len(ours):
                raise ValueError(f"it holds {saved} {group}, and the model has {len(ours)}")
            for i, variable in enumerate(ours):
                value = reader.get_tensor(f"{group}/{i}{_VALUE}")
                dtype = tf.as_dtype(variable.dtype)
                if np.asarray(value).dtype != dtype.as_numpy_dtype:  # assign would convert it.
                    raise ValueError(f"number {i} of its {group} is not {dtype.name}")
                variable.assign(value)
        text = reader.get_tensor(f"progress{_VALUE}")
        if not isinstance(text, bytes):
            raise typed_json.WrongError("is not a text", "progress")
        saved_progress: dict[str, Any] = typed_json.parsed(text, PROGRESS)
        return saved_progress
    except typed_json.WrongError:
        raise
    except ValueError as error:
        raise UserError(
            f"checkpoint {path} is of another model or optimizer: {first_line(error)}.\n"
            "Bring back the model that the run was started with, or name another --model_dir."
        ) from error


def first_line(error: Exception) -> str:
    """What an error says, in a line."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def digest(variables: Sequence[Any]) -> str:
    """SHA-256 over values, types and shapes of `variables`, in their order."""
    sha = hashlib.sha256()
    for variable in variables:
        array = variable.numpy()
        sha.update(f"{array.dtype.str}{array.shape}".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()
