"""The run directory: whose it is, which run it holds, and how that ended."""

import contextlib
import dataclasses
import errno
import os
import pathlib
import re
import socket
import time
from collections.abc import Iterator
from typing import IO

from absl import logging

from trainer.config import flagfile as flagfiles
from trainer.config.flags import Config
from trainer.errors import UserError
from trainer.system import file_lock
from trainer.system.atomic_file import flush, write_atomic
from trainer.system.regular_file import NotRegularError, ReadError, opener, read_regular

# What a run has printed, where a sweep has started it.
OUTPUT = "output.txt"
# Flags, and lines of text: a larger file is another one.
_MOST_BYTES = 2**20
_MOST_OWNER_BYTES = 300
# What a lock holds while a process has it: its number, and its host's name.
OWNER = re.compile(r"process \d{1,10} on ([!-~]{1,255})")
# Holds why the run has no finite loss any more, where that is how it ended.
DIVERGED = "diverged.txt"


class DamagedRunError(UserError):
    """A file of a run, without which it cannot go on, is damaged or cannot be read."""


@contextlib.contextmanager
def lock_run_dir(path: pathlib.Path, flagfile: str) -> Iterator[None]:
    """Holds `path` for the run of `flagfile`, new or begun there, while the context lasts.

    The lock is the kernel's on an open file, so that it goes with its process, however that ends;
    it reaches other hosts as far as the file system passes locks on, as NFS does. The flags are
    compared with the run's, and not kept: `keep_flags` does when all else is right.

    Raises:
      UserError: where another process has it, where it holds a run that would learn otherwise,
        something else, or links that lead out of it, or where it cannot be written.
    """
    with contextlib.ExitStack() as held:
        try:
            _check_is_run(path)
            path.mkdir(parents=True, exist_ok=True)
            _check_links(path)
            # Unbuffered: on a full disk, what is left to write would fail again on closing.
            lock = open(path / "lock", "a+b", buffering=0, opener=opener)  # noqa: SIM115
            held.callback(_let_go, lock)
            _take(lock, path)
            held.callback(_empty, lock)
            _check_same(path, flagfile)
        except OSError as error:
            raise _unusable(path, error) from error
        yield


def _empty(lock: IO[bytes]) -> None:
    """Forgets the owner; a disk that fails now has failed no run."""
    with contextlib.suppress(OSError):
        lock.truncate(0)


def _let_go(lock: IO[bytes]) -> None:
    with contextlib.suppress(OSError):  # The kernel has closed it all the same.
        lock.close()


def _unusable(path: pathlib.Path, error: OSError) -> UserError:
    if isinstance(error, (NotRegularError, ReadError)):
        return DamagedRunError(
            f"--model_dir={path} cannot be used: {error.filename} cannot be read: "
            f"{error.strerror}.\nRestore it from a copy, or name another folder."
        )
    return UserError(
        f"--model_dir={path} cannot be used: {error.strerror} "
        f"({error.filename or path / 'lock'}).\n"
        "Name a folder that can be written."
    )


def check(path: pathlib.Path, flagfile: str) -> None:
    """Refuses a folder in which the run of `flagfile` can neither begin nor go on.

    Raises:
      UserError: where it holds a run that would learn otherwise, or something else.
    """
    _check_is_run(path)
    _check_same(path, flagfile)


def is_held(path: pathlib.Path) -> bool:
    """Whether a process has claimed `path`; of one on another host, where the locks reach here."""
    with open(path / "lock", "rb", opener=opener) as lock:
        return not file_lock.take(lock, shared=True)


def kept_flags(path: pathlib.Path) -> str | None:
    """The flags.txt of the run or export in `path`; None if there is none.

    Raises:
      OSError: if it cannot be read, or is not a regular file.
    """
    try:
        return read_regular(path / "flags.txt", _MOST_BYTES).decode(errors="surrogateescape")
    except FileNotFoundError:
        return None


def order_version(path: pathlib.Path, config: Config) -> int:
    """Returns the order version of the run of `config` in `path`; a run that is there keeps it.

    Raises:
      OSError: if the run's flags cannot be read.
    """
    return flagfiles.order_version(config, kept_flags(path))


def flagfile_in(path: pathlib.Path, config: Config) -> str:
    """The flagfile that replays the run of `config` in `path`, its order version included.

    Raises:
      UserError: if the flags of the run that is there cannot be read.
    """
    try:
        version = order_version(path, config)
    except OSError as error:
        raise _unusable(path, error) from error
    return flagfiles.to_flagfile(dataclasses.replace(config, order_version=version))


def keep_flags(path: pathlib.Path, flagfile: str) -> None:
    """Makes `path` the directory of the run of `flagfile`."""
    write_atomic(path / "flags.txt", flagfile)
    # A machine that loses its power keeps the run: its name in the folder, and the folder's.
    flush(path)
    with contextlib.suppress(PermissionError):  # Of a folder that others may not list.
        flush(path.absolute().parent)


def _check_is_run(path: pathlib.Path) -> None:
    if path.exists() and not (path / "flags.txt").exists() and not _claimable(path):
        raise UserError(
            f"--model_dir={path} holds something that is no run: name a new folder or a run's."
        )


def _claimable(path: pathlib.Path) -> bool:
    """Empty, or left by a run that ended before it kept its flags."""
    early = {"lock", "flags.txt.tmp", "micro_batch.json", "micro_batch.json.tmp"}
    early |= {"bad_examples.txt", OUTPUT, "secret"}
    # HParams' row of a point of a sweep that has failed so early.
    early |= {"tensorboard"}
    return path.is_dir() and {entry.name for entry in path.iterdir()} <= early


def _check_links(path: pathlib.Path) -> None:
    """Refuses links that lead out of `path`: a run that came from elsewhere writes nowhere else."""
    for folder, folders, files in os.walk(path):
        for entry in (pathlib.Path(folder, name) for name in (*folders, *files)):
            if not entry.is_symlink():
                continue
            target = pathlib.Path(os.path.realpath(entry))  # Of a circle of links, a part of it.
            if not target.is_relative_to(os.path.realpath(path)):
                raise UserError(
                    f"--model_dir={path} holds a link to {target}: {entry}.\n"
                    "Put what it leads to in its place, or name another folder."
                )


def _take(lock: IO[bytes], path: pathlib.Path) -> None:
    host = socket.gethostname()
    for pause in (*[0.1] * 5, None):  # A report that looks whether it is held has it for a moment.
        lock.seek(0)
        owner = OWNER.fullmatch(
            lock.read(_MOST_OWNER_BYTES).decode(errors="surrogateescape").strip()
        )
        last = owner[0] if owner else ""  # Empty where it ended by itself.
        if file_lock.take(lock):
            break
        if pause is None:
            raise UserError(
                f"--model_dir={path} is in use by {last or 'another process'}: "
                "wait for it, stop it, or name another folder."
            )
        time.sleep(pause)
    if last and not last.endswith(f" on {host}"):
        logging.warning(
            "%s was last held by %s, which was killed, or runs on if this file system keeps locks "
            "from other hosts: in that case stop one of the two.",
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
        raise UserError(
            f"--model_dir={path} holds a run with other flags: {flagfiles.listed(differences)}.\n"
            "Give the flags that it was started with, or name another folder."
        )


def forget_divergence(path: pathlib.Path) -> None:
    """Removes what says that the run in `path` has diverged, since it goes on.

    Raises:
      NotRegularError: a folder has that name.
    """
    try:
        (path / DIVERGED).unlink(missing_ok=True)
    except IsADirectoryError as error:
        what = "it is a folder, not a regular file"
        raise NotRegularError(errno.EINVAL, what, str(path / DIVERGED)) from error
