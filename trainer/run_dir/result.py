"""result.json: the result of a run. The file exists once the run has finished."""

import pathlib
import re
from collections.abc import Mapping
from typing import Any

from trainer.run_dir.checkpoint_progress import BEST
from trainer.run_dir.directory import DamagedRunError
from trainer.system import typed_json
from trainer.system.atomic_file import write_json
from trainer.system.typed_json import DamagedError, WrongError, fields, integer, number

FILE = "result.json"
# Values by which a sweep compares runs.
RESULTS = ("top1", "loss", "updates", "seconds")

_FIELDS = fields(
    {"top1": number(0, 1), "loss": number(), "updates": integer(), "seconds": number(0)},
    {
        "epochs": number(0),
        "examples_per_second": number(0),
        "resumes": integer(),
        "replicas": integer(1),
        "hosts": integer(1),
        "parameters": typed_json.optional(integer(1)),
        "best": typed_json.optional(BEST),
        "evaluated_with": typed_json.one_of("plain", "ema"),
        "plain": fields({"top1": number(0, 1), "loss": number()}),
        "ema": fields({"top1": number(0, 1), "loss": number()}),
        "update_seconds": typed_json.table_of(number(1e-12, 1e12)),
        "image_size": integer(1),
    },
)


def write(folder: pathlib.Path, result: Mapping[str, Any]) -> None:
    """Writes the result of the run in `folder`; this file marks the run as finished.

    Raises:
      OSError: if the file cannot be written.
    """
    write_json(folder / FILE, result)


def _checked(value: Any) -> dict[str, Any]:
    """Checks a result, and converts the batch sizes in `update_seconds` from text to integers."""
    found = _FIELDS(value)
    sizes = found.get("update_seconds", {})
    for size in sizes:
        if not re.fullmatch("[1-9][0-9]{0,17}", size):
            raise WrongError(f"has {size[:20]!r}, which is not a batch size", "update_seconds")
    needed = [*(("replicas", "hosts") if sizes else ())]
    needed += ("plain", "ema") if "evaluated_with" in found else ()
    for name in needed:
        if name not in found:
            raise WrongError("is missing", name)
    return {**found, "update_seconds": {int(size): seconds for size, seconds in sizes.items()}}


def read(folder: pathlib.Path) -> dict[str, Any] | None:
    """Returns the result of the run in `folder`, or None if the run has not finished.

    Raises:
      DamagedError: if a value is missing or impossible.
      OSError: if the file cannot be read.
    """
    return typed_json.read_existing(folder / FILE, _checked)


def ended(folder: pathlib.Path) -> dict[str, Any] | None:
    """Returns the same as `read`, but raises an error with a remedy for the user.

    Raises:
      DamagedRunError: if the file is damaged or cannot be read.
    """
    try:
        return read(folder)
    except (DamagedError, OSError) as error:
        raise DamagedRunError(
            f"{folder / FILE} {typed_json.problem(error)}.\n"
            "Delete it: the same command then writes it again from the checkpoint."
        ) from error
