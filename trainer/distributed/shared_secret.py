"""Finds the secret by which the workers of one run authenticate to each other.

The launchers make a secret and pass it in the environment. Workers that are started by hand read it
from a file in the run directory. The secret is not a flag: it is not saved, nor compared on resume.
"""

import os
import pathlib
import shlex

from trainer.distributed.worker import Worker
from trainer.errors import UserError
from trainer.system.regular_file import opener

VARIABLE = "CRESCENDO_SECRET"
FILE = "secret"
_FEWEST_BYTES, _MOST_BYTES = 16, 4096
_OTHERS = 0o077  # Permissions of the group and of all other users.
_MAKE = "python -c 'import secrets; print(secrets.token_hex(32))'"


def find(worker: Worker, folder: pathlib.Path) -> bytes:
    """Returns the secret of `worker`'s run; may be empty if all workers are on this machine.

    Args:
      worker: this process's worker.
      folder: the run directory.

    Raises:
      UserError: if the secret is missing, too short, or in a file that other users may read.
    """
    path = folder / FILE
    if VARIABLE in os.environ:
        return _checked(os.fsencode(os.environ[VARIABLE]), VARIABLE, f"{VARIABLE}=$({_MAKE})")
    if (content := _read(path)) is not None:
        return _checked(content, str(path), command(path))
    if worker.local:
        return b""
    raise UserError(
        f"{worker} has no secret by which the workers authenticate: "
        f"neither {VARIABLE} nor {path} exists.\n"
        f"Make one that all workers can read: {command(path)}"
    )


def command(path: pathlib.Path) -> str:
    """Returns the shell command that writes a new secret to the file at `path`."""
    folder, file = shlex.quote(str(path.parent)), shlex.quote(str(path))
    return f"mkdir -p {folder} && (umask 077; {_MAKE} > {file})"


def _read(path: pathlib.Path) -> bytes | None:
    """Returns the content of the file at `path`; None if there is no such file."""
    try:
        with open(path, "rb", opener=opener) as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(_MOST_BYTES + 1)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UserError(
            f"{path} cannot be read: {error.strerror}.\nReplace it by a secret: {command(path)}"
        ) from error
    if mode & _OTHERS:
        raise UserError(
            f"{path} is a secret, and other users may read or write it (mode {mode & 0o777:o}).\n"
            f"Restrict its permissions: chmod 600 {shlex.quote(str(path))}"
        )
    return content


def _checked(content: bytes, source: str, remedy: str) -> bytes:
    secret = content.strip()
    if not _FEWEST_BYTES <= len(secret) <= _MOST_BYTES:
        raise UserError(
            f"{source} holds a secret of {len(secret):,} bytes, and it must have {_FEWEST_BYTES} "
            f"to {_MOST_BYTES:,}.\nMake a new one for all workers: {remedy}"
        )
    return secret
