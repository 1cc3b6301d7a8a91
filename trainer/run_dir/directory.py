"""The run directory: its lock, its flags, and its record of a divergence."""

import contextlib
import dataclasses
import errno
import os
import pathlib
import re
import socket
import time
from collections.abc import Callable, Iterator
from typing import IO

from absl import logging

from trainer.config import flagfile as flagfiles
from trainer.config.flags import Config
from trainer.errors import UserError
from trainer.system import file_lock
from trainer.system.atomic_file import flush, write_atomic
from trainer.system.regular_file import NotRegularError, ReadError, opener, read_regular

# Name of the file with the output of a run that a sweep started.
OUTPUT = "output.txt"
# Name of the file of a sweep, in the folder that has the run directories of the sweep's points.
SWEEP = "sweep.json"
# Content of a lock file while a process holds the lock: the process id and the host name.
OWNER = re.compile(r"process \d{1,10} on ([!-~]{1,255})")
# Name of the file with the error message of a run that ended because its loss was not finite.
DIVERGED = "diverged.txt"


class DamagedRunError(UserError):
    """A file that the run needs to resume is damaged or cannot be read."""


@contextlib.contextmanager
def lock_run_dir(path: pathlib.Path, flagfile: str) -> Iterator[None]:
    """Locks `path` for a new or existing run with the flags `flagfile` while the context lasts.

    If the process is killed, the kernel releases the lock. The lock excludes processes on other
    hosts if the file system shares locks between hosts, as NFS does. This function does not write
    the flags: call `keep_flags` once all other checks have passed.

    Raises:
      UserError: if another process holds the lock, or `path` cannot be written or is not a run
        directory. Also if `path` holds a run with other flags, or a link that leads out of `path`.
    """
    with contextlib.ExitStack() as held:
        try:
            _check_is_run(path)
            path.mkdir(parents=True, exist_ok=True)
            _check_links(path)
            # The file is unbuffered, because closing a buffered file fails on a full disk.
            lock = open(path / "lock", "a+b", buffering=0, opener=opener)  # noqa: SIM115
            held.callback(_try, lock.close)  # If close() fails, the kernel still closes the file.
            _take(lock, path)
            held.callback(_try, lock.truncate, 0)  # Erases the owner's name.
            _check_same(path, flagfile)
        except OSError as error:
            raise _unusable(path, error) from error
        yield


def _try(call: Callable[..., object], *arguments: int) -> None:
    with contextlib.suppress(OSError):
        call(*arguments)


def _unusable(path: pathlib.Path, error: OSError) -> UserError:
    if isinstance(error, (NotRegularError, ReadError)):
        return DamagedRunError(
            f"--model_dir={path} cannot be used: {error.filename} cannot be read: "
            f"{error.strerror}.\nRestore it from a copy, or name another folder."
        )
    return UserError(
        f"--model_dir={path} cannot be used: {error.strerror} "
        f"({error.filename or path / 'lock'}).\n"
        "Name a folder that you can write."
    )


def check(path: pathlib.Path, flagfile: str) -> None:
    """Checks that the run of `flagfile` can start or resume in `path`.

    Raises:
      UserError: if `path` is not a run directory, or holds a run with other flags.
    """
    _check_is_run(path)
    _check_same(path, flagfile)


def is_held(path: pathlib.Path) -> bool:
    """Returns whether a process holds the lock that `lock_run_dir` takes on `path`."""
    with open(path / "lock", "rb", opener=opener) as lock:
        return not file_lock.take(lock, shared=True)


def kept_flags(path: pathlib.Path) -> str | None:
    """Returns the text of flags.txt in `path`, a run or export; None if the file does not exist.

    Raises:
      OSError: if the file cannot be read, or is not a regular file.
    """
    try:
        # A flagfile is smaller than 1 MB.
        return read_regular(path / "flags.txt", 2**20).decode(errors="surrogateescape")
    except FileNotFoundError:
        return None


def order_version(path: pathlib.Path, config: Config) -> int:
    """Returns the version of the order of examples for a run of `config` in `path`.

    The version is --order_version in `config`. If this flag is unset, the run in `path` keeps its
    version, and a new run gets the newest version.

    Raises:
      OSError: if the run's flags cannot be read.
    """
    return flagfiles.order_version(config, kept_flags(path))


def flagfile_in(path: pathlib.Path, config: Config) -> str:
    """Returns a flagfile with the flags of `config`; `order_version` decides its --order_version.

    Raises:
      UserError: if the flags of the run in `path` cannot be read.
    """
    try:
        version = order_version(path, config)
    except OSError as error:
        raise _unusable(path, error) from error
    return flagfiles.to_flagfile(dataclasses.replace(config, order_version=version))


def keep_flags(path: pathlib.Path, flagfile: str) -> None:
    """Writes flags.txt, which makes `path` a run directory; flushes file and folder to the disk."""
    write_atomic(path / "flags.txt", flagfile)
    # The folder, and its name in the parent folder, must still exist after a power failure.
    flush(path)
    with contextlib.suppress(PermissionError):  # The parent folder may not be readable.
        flush(path.absolute().parent)


def _check_is_run(path: pathlib.Path) -> None:
    # flags.txt is looked for last, because another process may write it meanwhile.
    if path.exists() and not _claimable(path) and not (path / "flags.txt").exists():
        raise UserError(
            f"--model_dir={path} exists and is not a run directory: "
            "name a new folder, or that of a run."
        )


def _claimable(path: pathlib.Path) -> bool:
    """Returns whether `path` holds only files that a run writes before its flags."""
    early = {"lock", "flags.txt.tmp", "micro_batch.json", "micro_batch.json.tmp"}
    # If a point of a sweep fails before it writes its flags, the sweep makes `tensorboard`
    # for the point's row of TensorBoard's HParams table.
    early |= {"bad_examples.txt", OUTPUT, "secret", "tensorboard", "bucket.json", "fetched.json"}
    early |= {"forked_from.json", "forked_from.json.tmp"}
    if not path.is_dir():
        return False
    # With --image_sizes, there is a micro_batch_<size>.json for each size.
    names = {re.sub(r"^micro_batch_\d+\.", "micro_batch.", each.name) for each in path.iterdir()}
    return names <= early


def _check_links(path: pathlib.Path) -> None:
    """Rejects links that lead out of `path`.

    A copy of a run may have links to the original run. If the copy were trained, it would write
    into the original's files.
    """
    for folder, folders, files in os.walk(path):
        for entry in (pathlib.Path(folder, name) for name in (*folders, *files)):
            if not entry.is_symlink():
                continue
            target = pathlib.Path(os.path.realpath(entry))
            if not target.is_relative_to(os.path.realpath(path)):
                raise UserError(
                    f"--model_dir={path} holds a link to {target}: {entry}.\n"
                    "Replace the link by a copy of its target, or name another folder."
                )


def _take(lock: IO[bytes], path: pathlib.Path) -> None:
    host = socket.gethostname()
    for attempt in range(6):  # In is_held(), a report holds the lock for a moment.
        lock.seek(0)
        owner = OWNER.fullmatch(lock.read(300).decode(errors="surrogateescape").strip())
        last = owner[0] if owner else ""  # Empty if the last owner ended normally.
        if file_lock.take(lock):
            break
        if attempt == 5:
            raise UserError(
                f"--model_dir={path} is in use by {last or 'another process'}: "
                "wait for it, stop it, or name another folder."
            )
        time.sleep(0.1)
    if last and not last.endswith(f" on {host}"):
        logging.warning(
            "%s was last used by %s. That process was killed, or it still runs and this file "
            "system does not share locks between hosts. If it still runs, stop one of the two.",
            path,
            last,
        )
    lock.truncate(0)
    lock.write(f"process {os.getpid()} on {host}\n".encode())


def _check_same(path: pathlib.Path, flagfile: str) -> None:
    kept = kept_flags(path)
    if kept is None:
        return
    if wrong := flagfiles.not_a_flag(kept):
        raise DamagedRunError(
            f"{path}/flags.txt is damaged: {wrong}.\n"
            "Restore it from a copy, or name another folder."
        )
    if differences := flagfiles.learned_differences(kept, flagfile):
        both = flagfiles.learned(kept), flagfiles.learned(flagfile)
        other = f"begin a run in another folder with --fork_from={path}@newest and the new flags."
        if any(flags.get("anneal") == "range_test" for flags in both):  # It cannot be forked.
            other = "name another --model_dir."
        raise UserError(
            f"--model_dir={path} holds a run with other flags: {flagfiles.listed(differences)}.\n"
            f"Give the flags that it was started with, or {other}"
        )


def forget_divergence(path: pathlib.Path) -> None:
    """Removes the record of a divergence in `path`, because the run trains again.

    Raises:
      NotRegularError: if a folder has the name of the record.
    """
    try:
        (path / DIVERGED).unlink(missing_ok=True)
    except IsADirectoryError as error:
        what = "it is a folder, not a regular file"
        raise NotRegularError(errno.EINVAL, what, str(path / DIVERGED)) from error
