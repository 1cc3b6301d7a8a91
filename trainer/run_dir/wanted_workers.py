"""workers.json: the number of workers with which a run with --workers should go on.

The chief writes the file when the workers leave in order to be started again in another number.
The launchers read it before each start, by

    python -m trainer.run_dir.wanted_workers --flagfile=... --model_dir=...

with the flags of train.
"""

import contextlib
import dataclasses
import pathlib
import sys
from collections.abc import Sequence

from trainer.buckets.url import parse
from trainer.config import command_line, number_range
from trainer.config.flags import Config
from trainer.errors import UserError
from trainer.run_dir.bucket_connection import local_folder
from trainer.system import typed_json
from trainer.system.atomic_file import write_json
from trainer.system.typed_json import DamagedError, fields, integer

FILE = "workers.json"
_FIELDS = fields({"workers": integer(1), "batch_size": integer(1), "update": integer()})


@dataclasses.dataclass(frozen=True)
class Request:
    """Request to go on with `workers` from update `update` on, because of its batch size."""

    workers: int
    batch_size: int
    update: int


def read(path: pathlib.Path) -> Request | None:
    """Returns the last request of the run in `path`; None if it is missing or damaged.

    The file only saves a start with the wrong number of workers. So a damaged file is ignored.
    """
    with contextlib.suppress(OSError, DamagedError):
        return Request(**typed_json.read(path / FILE, _FIELDS))
    return None


def write(path: pathlib.Path, request: Request) -> None:
    """Writes the request into the run directory `path`."""
    write_json(path / FILE, dataclasses.asdict(request))


def number(config: Config) -> int | None:
    """Returns the number of workers to start; None if --workers is not set.

    It is the number that the run has asked for. A run that has not asked for any, or whose files
    are on another machine, starts with the smallest number.
    """
    if config.workers is None or config.model_dir is None:
        return None
    url = parse(config.model_dir)
    path = local_folder(url, config.cache_dir) if url else pathlib.Path(config.model_dir)
    numbers, asked = number_range.parse(config.workers), read(path)
    return asked.workers if asked and asked.workers in numbers else numbers.first


def of_flags(flags: Sequence[str]) -> int | None:
    """Returns `number` for the flags of train; None if they are wrong, which train reports."""
    try:
        return number(command_line.parse("train", flags))
    except UserError:
        return None


def main() -> int:
    """Prints the number of workers to start, or nothing if --workers is not set."""
    wanted = of_flags(["--strategy=multi_worker", *sys.argv[1:]])
    if wanted is not None:
        print(wanted)
    return 0


if __name__ == "__main__":
    sys.exit(main())
