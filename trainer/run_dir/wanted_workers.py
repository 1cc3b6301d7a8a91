"""workers.json: the number of workers with which a run with --workers should go on.

The chief writes the file before all workers exit, so that the launcher starts another number.
The launchers call this module before each start, with the most workers that they can start and the
flags of train:

    python -m trainer.run_dir.wanted_workers 4 --flagfile=... --model_dir=...

It prints the number of workers to start, and the value of --workers with which they start.
"""

import contextlib
import dataclasses
import pathlib
import sys
import tempfile
from collections.abc import Sequence

from trainer.buckets.objects import UnavailableError
from trainer.buckets.url import parse
from trainer.config import command_line, number_range
from trainer.config.flags import Config
from trainer.config.number_range import NumberRange
from trainer.errors import ExitError, ExitStatus, UserError
from trainer.run_dir.bucket_connection import connect, local_folder
from trainer.run_dir.mirror_download import download
from trainer.system import output, typed_json
from trainer.system.atomic_file import write_json
from trainer.system.output import log
from trainer.system.typed_json import DamagedError, fields, integer

FILE = "workers.json"
_FIELDS = fields({"workers": integer(1), "batch_size": integer(1), "update": integer()})


@dataclasses.dataclass(frozen=True)
class Request:
    """Request to go on with `workers` after update `update`, because of the next batch size."""

    workers: int
    batch_size: int
    update: int


@dataclasses.dataclass(frozen=True)
class Start:
    """Number of workers to start, and the numbers among which the run may choose from then on."""

    workers: int
    numbers: NumberRange


def read(path: pathlib.Path) -> Request | None:
    """Returns the last request of the run in `path`; None if it is missing or damaged.

    The file only saves a start with the wrong number of workers. So a damaged file is ignored.
    """
    with contextlib.suppress(OSError, DamagedError):
        found = typed_json.read(path / FILE, _FIELDS)
        return Request(found["workers"], found["batch_size"], found["update"])
    return None


def write(path: pathlib.Path, request: Request) -> None:
    """Writes the request into the run directory `path`."""
    write_json(path / FILE, dataclasses.asdict(request))


def elastic_config(flags: Sequence[str]) -> Config | None:
    """Returns the parsed flags of train if they have --workers and --model_dir, otherwise None.

    If a flag is wrong, the result is None too, because train reports it.
    """
    try:
        config = command_line.parse("train", ["--strategy=multi_worker", *flags])
    except UserError:
        return None
    return config if config.workers and config.model_dir else None


def next_start(config: Config, most: int) -> Start:
    """Returns how a launcher that can start `most` workers starts a run with --workers.

    A run that has not asked for a number starts with the smallest one.

    Raises:
      UserError: if `most` is below all numbers of --workers.
    """
    assert config.workers
    assert config.model_dir
    numbers = number_range.parse(config.workers)
    if most < numbers.first:
        raise UserError(
            f"--workers={config.workers} needs at least {numbers.first} workers, and at most "
            f"{most} can start.\nUse a smaller number in --workers, or start more workers."
        )
    numbers = NumberRange(numbers.first, min(numbers.last, most))
    asked = _last_request(config.model_dir, config)
    return Start(asked.workers if asked and asked.workers in numbers else numbers.first, numbers)


def _last_request(model_dir: str, config: Config) -> Request | None:
    """Returns the last request of the run; reads it from the bucket if the run is in one."""
    url = parse(model_dir)
    if url is None:
        return read(pathlib.Path(model_dir))
    with tempfile.TemporaryDirectory() as folder:
        try:
            download(connect(url), str(url), pathlib.Path(folder), lambda path: path == FILE)
            return read(pathlib.Path(folder))
        except (ExitError, UnavailableError) as error:
            log(f"{FILE} is read from the local copy: {error}")
    return read(local_folder(url, config.cache_dir))


def main() -> int:
    """Prints the number of workers and the range, or nothing if --workers is not set."""
    if len(sys.argv) < 2 or not sys.argv[1].isdecimal():
        print(f"usage: python -m {__spec__.name} MOST --flag=value ...", file=sys.stderr)
        return ExitStatus.USER_ERROR
    output.log_to("wanted_workers")  # Standard output has nothing but the numbers.
    config = elastic_config(sys.argv[2:])
    if config is None:
        return ExitStatus.DONE
    try:
        start = next_start(config, int(sys.argv[1]))
    except UserError as error:
        print(f"wanted_workers: {error}", file=sys.stderr)
        return error.status
    print(start.workers, start.numbers)
    return ExitStatus.DONE


if __name__ == "__main__":
    sys.exit(main())
