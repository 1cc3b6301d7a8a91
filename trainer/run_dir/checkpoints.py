"""Checkpoints of a run: its variables and its progress, written atomically.

The variables include the parameters, the moving statistics and the optimizer slots. A checkpoint is
a folder `checkpoints/<update>`. To save a checkpoint, training copies the variables. A background
thread writes the copies with tf.train.Checkpoint to the folder `incomplete`, and then renames this
folder. If an evaluation changes the progress after the checkpoint of an update was written, the
next checkpoint is `<update>.1`. TensorFlow stores a checksum of every tensor, and verifies the
checksum when it reads the tensor.
"""

import contextlib
import errno
import hashlib
import json
import os
import pathlib
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from trainer.errors import UserError
from trainer.run_dir.checkpoint_names import found, update_of
from trainer.run_dir.checkpoint_progress import PROGRESS
from trainer.run_dir.literal_path import named, plain
from trainer.system import typed_json
from trainer.system.atomic_file import move_atomic, remove
from trainer.system.output import log
from trainer.system.regular_file import NotRegularError

Variables = Mapping[str, Sequence[Any]]
# The variables to read, or a function that maps a checkpoint's progress to the variables to read.
Select = Variables | Callable[[Mapping[str, Any]], Variables]

# Errors that TensorFlow's reader raises if a file is truncated, altered or missing.
DAMAGED = (tf.errors.OpError, IndexError, RuntimeError, OSError)
# System errors that show damage: a file is missing, or the disk (EIO) or file system is damaged.
# After others, such as a stale NFS handle or too many open files, the checkpoint may be intact.
_DAMAGE_NUMBERS = (
    *(errno.ENOENT, errno.ENOTDIR, errno.ELOOP),
    *(errno.EIO, errno.EBADMSG, errno.EUCLEAN),
)
# Suffix of a variable's key in tf.train.Checkpoint.
_VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
# Free bytes that a checkpoint requires beyond the size of its variables. The names and shapes of
# the variables, and the growing log of the run, take this space.
_SPARE_BYTES = 2**20


class DamagedCheckpointError(Exception):
    """Raised if a checkpoint is damaged."""


class Checkpoints:
    """Saves and restores checkpoints in `folder`; keeps the `keep` newest checkpoints and the best.

    Args:
      folder: folder of the checkpoints; created when it is needed.
      variables: groups of variables, by name. A checkpoint identifies a variable by its index in
        the group, because names of layers may differ between processes.
      keep: number of newest checkpoints to keep.
    """

    def __init__(self, folder: pathlib.Path, variables: Variables, *, keep: int) -> None:
        self._folder = folder
        self._keep = keep
        self.variables = variables
        self._newest: int | None = None
        self._newest_progress = ""
        self._writer: threading.Thread | None = None

    def save(self, update: int, progress: Mapping[str, Any], best: int | None = None) -> None:
        """Copies the variables after `update` updates, and writes the copies in the background.

        Args:
          update: number of updates so far.
          progress: state of the run, as values that JSON can hold.
          best: update of the best evaluation, or None. The checkpoint of this update is kept too.
        """
        self.wait()
        text = json.dumps(progress)
        if (update, text) == (self._newest, self._newest_progress):
            return
        copies = {name: [v.numpy() for v in group] for name, group in self.variables.items()}
        job = (update, copies, text, best)
        # The exit of the process may interrupt a daemon thread. The incomplete checkpoint that
        # remains is never read.
        writer = threading.Thread(target=self._write, args=job, daemon=True)
        try:
            writer.start()
            self._writer = writer
        except RuntimeError as error:  # No thread can be started, so this thread writes.
            log(f"{error}; training pauses while the checkpoint is written")
            self._write(*job)

    def wait(self) -> int | None:
        """Waits until no checkpoint is being written; returns the newest checkpoint's update."""
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
                log(f"{temporary} is not a folder; renamed it to {_put_aside(temporary)}")
            remove(temporary)
            temporary.mkdir(parents=True)
            needed = sum(copy.nbytes for group in copies.values() for copy in group) + _SPARE_BYTES
            free = shutil.disk_usage(temporary).free
            if free < needed:
                raise OSError(f"it needs {needed:,} bytes, and {free:,} are free")
            with tf.device("CPU:0"):
                groups = {name: [tf.Variable(c) for c in group] for name, group in copies.items()}
                text = tf.Variable(progress, dtype=tf.string)
            tf.train.Checkpoint(progress=text, **groups).write(str(temporary / "checkpoint"))
            move_atomic(temporary, self._unused(update))
        except (OSError, RuntimeError, MemoryError, tf.errors.OpError) as error:
            shutil.rmtree(temporary, ignore_errors=True)
            newest = f"the newest checkpoint is of update {self._newest}"
            if self._newest is None:
                newest = "no checkpoint exists yet"
            log(
                f"the checkpoint of update {update} cannot be written: {first_line(error)};\n"
                f"{newest}. Training continues, and tries again at the next checkpoint."
            )
            return
        self._newest, self._newest_progress = update, progress
        others = found(self._folder)[:-1]
        updates = sorted({update, *map(update_of, others)})
        kept = {*updates[-self._keep :], best} - {update}
        for old in others:
            if update_of(old) not in kept:
                remove(old)

    def restore(self, select: Select | None = None) -> dict[str, Any] | None:
        """Reads the newest intact checkpoint; returns its progress, or None if there is none.

        If newer checkpoints are damaged, they are reported, and renamed to `damaged-<name>`. If
        `select` is given, it replaces `variables`.

        Raises:
          UserError: if every checkpoint is damaged, if the newest intact checkpoint has other
            variables, or if the folder or a checkpoint cannot be read.
        """
        existing, damaged = found(self._folder), []
        for path in reversed(existing):
            try:
                progress = read(path, select or self.variables)
            except DamagedCheckpointError as error:
                log(f"checkpoint {path} is damaged and left out: {first_line(error)}")
                damaged.append(path)
                continue
            except OSError as error:
                raise UserError(
                    f"checkpoint {path} cannot be read: {first_line(error)}.\n"
                    "Make it readable and give the same command again, or move it to another "
                    "folder to use the checkpoint before it."
                ) from error
            for other in damaged:
                _put_aside(other)
            self._newest, self._newest_progress = update_of(path), json.dumps(progress)
            return progress
        if existing:
            raise UserError(
                f"every checkpoint in {self._folder} is damaged.\n"
                "Restore one from a copy, or name a new --model_dir to start a new run."
            )
        return None

    def _unused(self, update: int) -> pathlib.Path:
        """Returns an unused path for a checkpoint of `update`: <update>, <update>.1, and so on."""
        suffixes = [path.suffix for path in found(self._folder) if update_of(path) == update]
        number = f".{int(suffixes[-1].lstrip('.') or 0) + 1}" if suffixes else ""
        return self._folder / f"{update:09d}{number}"


class NoCheckpoints(Checkpoints):
    """Replaces Checkpoints on workers other than the chief; saves and restores nothing."""

    def __init__(self) -> None:
        self.variables: Variables = {}
        self._newest: int | None = None

    def save(self, update: int, progress: Mapping[str, Any], best: int | None = None) -> None:
        """Records `update` as saved."""
        self._newest = update

    def wait(self) -> int | None:
        """Returns the update that was last recorded."""
        return self._newest

    def restore(self, select: Select | None = None) -> None:
        """Returns None."""


def _put_aside(path: pathlib.Path) -> str:
    """Renames `path` to damaged-<name>, in place of any older file there; returns the new name."""
    aside = path.with_name(f"damaged-{path.name}")
    remove(aside)
    path.rename(aside)
    return aside.name


def read(path: pathlib.Path, variables: Select) -> dict[str, Any]:
    """Reads groups of variables from the checkpoint at `path`; returns its progress.

    Raises:
      UserError: if the variables of a group differ from those in the checkpoint.
      DamagedCheckpointError: if the checkpoint is damaged.
      OSError: if it cannot be read for another reason.
    """
    try:
        with contextlib.ExitStack() as stack:
            with _reading(path):
                readable = stack.enter_context(plain(path))
                # Unlike tf.train.Checkpoint.read, this does not warn of variables that stay unread.
                reader = tf.train.load_checkpoint(f"{readable}/checkpoint")
                progress = _progress(reader)
            chosen = variables(progress) if callable(variables) else variables
            for name, members in chosen.items():
                _read_group(path, reader, name, members)
        return progress
    except ValueError as error:
        raise UserError(
            f"checkpoint {path} was written for another model or optimizer: {first_line(error)}.\n"
            "Restore the model that the run was started with, or name another --model_dir."
        ) from error


@contextlib.contextmanager
def _reading(path: pathlib.Path) -> Iterator[None]:
    """Replaces the errors of a block that reads the checkpoint at `path`.

    TensorFlow's messages name a path under /proc, which `named` replaces.

    Raises:
      DamagedCheckpointError: if the error shows damage.
      OSError: if the checkpoint cannot be read for another reason.
    """
    try:
        yield
    except OSError as error:
        message = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        message = named(message, path)
        if isinstance(error, NotRegularError) or error.errno in _DAMAGE_NUMBERS:
            raise DamagedCheckpointError(message) from error
        raise OSError(message) from error
    except (*DAMAGED, typed_json.WrongError) as error:
        raise DamagedCheckpointError(named(str(error), path)) from error


def _progress(reader: Any) -> dict[str, Any]:
    reader.get_tensor("_CHECKPOINTABLE_OBJECT_GRAPH")  # Verifies its checksum.
    text = reader.get_tensor(f"progress{_VALUE}")
    if not isinstance(text, bytes):
        raise typed_json.WrongError("is not a string", "progress")
    return typed_json.parsed(text, PROGRESS)


def _read_group(path: pathlib.Path, reader: Any, group: str, members: Sequence[Any]) -> None:
    """Reads one group of variables; raises a ValueError if the checkpoint has others."""
    saved = sum(name.startswith(f"{group}/") for name in reader.get_variable_to_shape_map())
    if saved != len(members):
        raise ValueError(f"it holds {saved} {group}, and the model has {len(members)}")
    for i, variable in enumerate(members):
        with _reading(path):
            value = reader.get_tensor(f"{group}/{i}{_VALUE}")
        dtype = tf.as_dtype(variable.dtype)
        if np.asarray(value).dtype != dtype.as_numpy_dtype:  # assign() would convert it.
            raise ValueError(f"variable {i} of its group {group} is not {dtype.name}")
        # Errors of the device, such as lack of memory, are not damage of the checkpoint.
        variable.assign(value)


def first_line(error: Exception) -> str:
    """Returns the first line of an error's message, or its type if the message is empty."""
    return (str(error).splitlines() or [type(error).__name__])[0]


def digest(variables: Sequence[Any]) -> str:
    """Returns the SHA-256 of the types, shapes and values of `variables`, in their order."""
    sha = hashlib.sha256()
    for variable in variables:
        array = variable.numpy()
        sha.update(f"{array.dtype.str}{array.shape}".encode())
        sha.update(array.tobytes())
    return sha.hexdigest()
