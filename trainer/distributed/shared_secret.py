"""The secret by which the workers of one run know each other.

The launchers make one and hand it on in the environment. A file in the run directory does where
each worker is started by hand. The secret is not a flag: it is neither kept nor compared.
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
_OTHERS = 0o077  # Permissions of the group and of all users.
_MAKE = "python -c 'import secrets; print(secrets.token_hex(32))'"


def find(worker: Worker, folder: pathlib.Path) -> bytes:
    """Returns the secret of `worker`'s run; empty if there is none, and none is needed.

    Args:
      worker: this one.
      folder: the run directory.

    Raises:
      UserError: if the secret is missing, too short, or in a file that other users may read.
    """
    path = folder / FILE
    if VARIABLE in os.environ:
        return _checked(os.fsencode(os.environ[VARIABLE]), VARIABLE, f"{VARIABLE}=$({_MAKE})")
    if (kept := _read(path)) is not None:
        return _checked(kept, str(path), command(path))
    if worker.local:
        return b""
    raise UserError(
        f"{worker} has no secret by which the workers know each other: "
        f"neither {VARIABLE} nor {path} is there.\n"
        f"Make one that all workers can read: {command(path)}"
    )


def command(path: pathlib.Path) -> str:
    """Returns the line of a shell that puts a new secret into the file at `path`."""
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
            f"{path} cannot be read: {error.strerror}.\nPut a secret in its place: {command(path)}"
        ) from error
    if mode & _OTHERS:
        raise UserError(
            f"{path} is a secret, and other users may read or write it (mode {mode & 0o777:o}).\n"
            f"Take it from them: chmod 600 {shlex.quote(str(path))}"
        )
    return content


def _checked(content: bytes, source: str, remedy: str) -> bytes:
    found = content.strip()
    if not _FEWEST_BYTES <= len(found) <= _MOST_BYTES:
        raise UserError(
            f"{source} holds a secret of {len(found):,} bytes, and it must have {_FEWEST_BYTES} "
            f"to {_MOST_BYTES:,}.\nMake a new one for all workers: {remedy}"
        )
    return found
