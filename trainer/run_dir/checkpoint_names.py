"""Names of checkpoints: a checkpoint is a folder `<update>` or `<update>.<number>`.

This module does not import TensorFlow, because that takes four seconds.
"""

import os
import pathlib
import re

from trainer.errors import UserError

# Files with other names in the folder of the checkpoints are ignored.
NAME = re.compile(r"[0-9]{9,18}(\.[0-9]{1,9})?")


def found(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the paths in `folder` that have the name of a checkpoint, the oldest first.

    Raises:
      UserError: if the folder cannot be read.
    """
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise UserError(
            f"{folder} cannot be read: {error.strerror}.\n"
            f"Restore the run's folder at this path, or remove {folder} to start a new run."
        ) from error
    paths = [folder / name for name in names if NAME.fullmatch(name)]
    return sorted(paths, key=lambda path: tuple(map(int, path.name.split("."))))


def update_of(path: pathlib.Path) -> int:
    """Returns the update of the checkpoint at `path`."""
    return int(path.stem)
