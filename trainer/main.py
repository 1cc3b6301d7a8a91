"""Flags → Config → one command; the exit status says how it ended."""

import os
import sys
import traceback
from collections.abc import Callable, Sequence

from absl import app, logging

from trainer import config


def main(argv: Sequence[str]) -> int:
    """Runs the command that `argv`, program name first, asks for; returns the exit status.

    0: done. 2: a mistake of the user's. 3: the loss is not finite. 74: what the run learned last
    cannot be written. 75: stopped by a signal, and checkpointed; start it again.
    76: another worker was lost; start all again.
    """
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # Without TensorFlow's start-up notes.
    program, *rest = argv
    name = rest.pop(0) if rest and not rest[0].startswith("-") else "train"
    try:
        command = _command(name)
        return command(config.from_flags([program, *rest]))
    except config.UserError as error:
        print(f"crescendo {name}: {error}", file=sys.stderr)
        return 2


def _command(name: str) -> Callable[[config.Config], int]:
    """The command's run; the imports are its own alone, so that plan answers without TensorFlow."""
    match name:
        case "plan":
            from trainer.commands import plan

            return plan.run
        case "train":
            from trainer.commands import train

            return train.run
        case "convert":
            from trainer.commands import convert

            return convert.run
        case "range_test":
            from trainer.commands import range_test

            return range_test.run
    raise config.UserError(
        f"unknown command {name!r}: the commands are plan, train, range_test and convert."
    )


def entry() -> None:
    """The program: absl's --help flags, then main."""
    app.define_help_flags()
    logging.use_absl_handler()
    try:
        status = main(sys.argv)
    except Exception:
        traceback.print_exc()
        status = 1
    sys.stdout.flush()
    sys.stderr.flush()
    # The input pipeline's threads call Python: one that outlives the interpreter hangs or aborts.
    os._exit(status)
