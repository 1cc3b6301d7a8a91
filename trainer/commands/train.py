"""train: starts a run in its directory, or goes on with the one that is there."""

import json
import pathlib
import signal
import sys
from collections.abc import Callable

from trainer.config import Config, UserError, to_flagfile
from trainer.run_dir import directory

# A scheduler that sees it starts the run again: EX_TEMPFAIL of sysexits.h.
STOPPED = 75
NON_FINITE = 3


def run(config: Config) -> int:
    """Trains as `config` says; returns the exit status.

    Raises:
      UserError: for flags, data, a model or a directory that cannot be trained with, before any
        training.
    """
    if config.model_dir is None:
        raise UserError("--model_dir is missing: name the run's directory, as in runs/first.")
    path = pathlib.Path(config.model_dir)
    with directory.claim(path, to_flagfile(config)):
        ended = directory.result(path)
        if ended is not None:
            print(f"{path} is finished: top1 {ended['top1']:.4f} in {ended['updates']} updates.")
            return 0
        return _train(config, path)


def _train(config: Config, path: pathlib.Path) -> int:
    # TensorFlow takes four seconds to import, which a directory in use or finished need not wait
    # for.
    from trainer import assemble, loop

    stopped = _stop_signal()
    try:
        result = assemble.train(config, path, stopped)
    except loop.NonFiniteLossError as error:
        print(f"crescendo train: {error}", file=sys.stderr)
        return NON_FINITE
    if result is None:
        print(f"stopped, with a checkpoint; the same command goes on in {path}")
        return STOPPED if stopped() else 0
    directory.write_whole(path / "result.json", json.dumps(result, indent=2) + "\n")
    print(f"top1 {result['top1']:.4f} in {result['updates']} updates; see {path}/result.json")
    return 0


def _stop_signal() -> Callable[[], bool]:
    """Whether SIGTERM or SIGINT has come; a second one ends the process at once."""
    received: list[int] = []

    def receive(number: int, frame: object) -> None:
        received.append(number)
        for each in (signal.SIGTERM, signal.SIGINT):
            signal.signal(each, signal.SIG_DFL)

    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, receive)
    return lambda: bool(received)
