"""Flags → Config → one command; the exit status says how it ended."""

import contextlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence

from absl import app, logging

from trainer import config
from trainer.run_dir import subject


def main(argv: Sequence[str]) -> int:
    """Runs the command that `argv`, program name first, asks for; returns the exit status.

    0: done. 2: user's mistake. 3: no finite loss. 74: not written. 75: stopped, 76: worker lost.
    """
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # Without TensorFlow's start-up notes.
    program, *rest = argv
    name = rest.pop(0) if rest and not rest[0].startswith("-") else "train"
    try:
        command = _command(name)
        asked = config.from_flags([program, *rest])
        if kept := subject.kept_flags(name, asked):  # In front, so that those given now win.
            asked = config.from_flags([program, *kept, *rest])
        return command(asked)
    except config.UserError as error:
        print(f"crescendo {name}: {error}", file=sys.stderr)
        return 2


def _command(name: str) -> Callable[[config.Config], int]:
    """The command's run; the imports are its own alone, so that plan answers without TensorFlow."""
    match name:
        case "plan":
            from trainer.commands.plan import run
        case "train":
            from trainer.commands.train import run
        case "range_test":
            from trainer.commands.range_test import run
        case "evaluate":
            from trainer.commands.evaluate import run
        case "export":
            from trainer.commands.export import run
        case "convert":
            from trainer.commands.convert import run
        case _:
            raise config.UserError(
                f"unknown command {name!r}: plan, train, range_test, evaluate, export or convert."
            )
    return run


def entry() -> None:
    """The program: absl's --help flags, then main."""
    app.define_help_flags()
    logging.use_absl_handler()
    try:
        status = main(sys.argv)
    except (Exception, KeyboardInterrupt):
        traceback.print_exc()
        status = 1
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):  # Who read it has left, as head does.
            stream.flush()
    # The input pipeline's threads call Python: one that outlives the interpreter hangs or aborts.
    os._exit(status)
