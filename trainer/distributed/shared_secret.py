"""Finds the secret by which the workers of one run authenticate to each other.

The launchers (scripts/launch_local.sh and those in scripts/cluster/) make a secret, and pass it to
the workers in the environment. Without a launcher, the user writes the secret to a file in the run
directory. The secret is not a flag, because all flags are saved in the run directory.
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
_MAKE = "python -c 'import secrets; print(secrets.token_hex(32))'"


def find(worker: Worker, folder: pathlib.Path | None) -> bytes:
    """Returns the secret of this process, a `worker` of the run in `folder`.

    The result is empty if no secret exists and all workers are on this machine. `folder` is None if
    the workers share no folder, because the run is in a bucket.

    Raises:
      UserError: if the secret is missing, too short or too long, or if other users may read or
        write its file.
    """
    if VARIABLE in os.environ:
        return _checked(os.fsencode(os.environ[VARIABLE]), VARIABLE, f"{VARIABLE}=$({_MAKE})")
    path = folder / FILE if folder else None
    if path and (content := _read(path)) is not None:
        return _checked(content, str(path), command(path))
    if worker.local:
        return b""
    if path is None:
        raise UserError(
            f"{worker} has no secret by which the workers authenticate: {VARIABLE} is not set.\n"
            f"Set the same secret for all workers: {VARIABLE}=$({_MAKE})"
        )
    raise UserError(
        f"{worker} has no secret by which the workers authenticate: neither {VARIABLE} nor {path} "
        f"exists.\nMake a secret that all workers can read: {command(path)}"
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
    if mode & 0o077:  # These are the permissions of the group and of all other users.
        raise UserError(
            f"{path} is a secret, and other users may read or write it (mode {mode & 0o777:o}).\n"
            f"Restrict its permissions: chmod 600 {shlex.quote(str(path))}"
        )
    return content


def _checked(content: bytes, source: str, remedy: str) -> bytes:
    secret = content.strip()
    if not _FEWEST_BYTES <= len(secret) <= _MOST_BYTES:
        raise UserError(
            f"{source} has a secret of {len(secret):,} bytes, but a secret must have "
            f"{_FEWEST_BYTES} to {_MOST_BYTES:,}.\nMake a new one for all workers: {remedy}"
        )
    return secret
