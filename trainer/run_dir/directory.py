"""The run directory: whose it is, which run it holds, and how that ended."""

import contextlib
import fcntl
import json
import os
import pathlib
import socket
from collections.abc import Iterator
from typing import Any

from trainer.config import UserError, learned_differences


@contextlib.contextmanager
def claim(path: pathlib.Path, flagfile: str) -> Iterator[None]:
    """Holds `path` for the run of `flagfile`, new or begun there, while the context lasts.

    The lock is the kernel's on an open file, so that it goes with its process, however that ends.
    The flags are compared with the run's, and not kept: `keep_flags` does when all else is right.

    Raises:
      UserError: where another process has it, where it holds a run that would learn otherwise or
        something else, or where it cannot be written.
    """
    with contextlib.ExitStack() as held:
        try:
            if path.exists() and not (path / "flags.txt").exists() and not _claimable(path):
                raise UserError(
                    f"--model_dir={path} holds something that is no run: "
                    "name a new folder or a run's."
                )
            path.mkdir(parents=True, exist_ok=True)
            # Unbuffered: on a full disk, what is left to write would fail again on closing.
            lock = held.enter_context(open(path / "lock", "a+b", buffering=0))
            _take(lock, path)
            _check_same(path, flagfile)
        except OSError as error:
            raise UserError(
                f"--model_dir={path} cannot be used: {error.strerror} ({error.filename}).\n"
                "Name a folder that can be written."
            ) from error
        yield


def keep_flags(path: pathlib.Path, flagfile: str) -> None:
    """Makes `path` the directory of the run of `flagfile`."""
    write_whole(path / "flags.txt", flagfile)


def _claimable(path: pathlib.Path) -> bool:
    """Empty, or left by a run that ended before it kept its flags."""
    early = {"lock", "flags.txt.tmp", "micro_batch.json", "micro_batch.json.tmp"}
    return path.is_dir() and {entry.name for entry in path.iterdir()} <= early


def _take(lock: Any, path: pathlib.Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        lock.seek(0)
        raise UserError(
            f"--model_dir={path} is in use by {lock.read().decode().strip() or 'another process'}: "
            "wait for it, stop it, or name another folder."
        ) from error
    lock.truncate(0)
    lock.write(f"process {os.getpid()} on {socket.gethostname()}\n".encode())


def _check_same(path: pathlib.Path, flagfile: str) -> None:
    flags = path / "flags.txt"
    if not flags.exists():
        return
    differences = learned_differences(flags.read_text(encoding="utf-8"), flagfile)
    if differences:
        raise UserError(
            f"--model_dir={path} holds a run with other flags: {'; '.join(differences)}.\n"
            "Give the flags that it was started with, or name another folder."
        )


def result(path: pathlib.Path) -> dict[str, Any] | None:
    """How the run in `path` ended, or None where it has not."""
    file = path / "result.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.exists() else None


def write_whole(path: pathlib.Path, text: str) -> None:
    """Writes a file that appears whole or not at all, and stays.

    Raises:
      OSError: where it cannot, with the file's name, which the system's own lacks on a full disk.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from error
