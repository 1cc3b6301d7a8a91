"""Flags → Config → one command; the exit status says how it ended."""

import contextlib
import errno
import gc
import importlib
import os
import select
import signal
import sys
import traceback
from collections.abc import Sequence

from absl import logging

from trainer import __version__
from trainer.config import command_help, command_line
from trainer.errors import ExitError, ExitStatus
from trainer.regular_file import NotRegularError
from trainer.run_dir import subject


def main(argv: Sequence[str]) -> int:
    """Runs the command that `argv`, program name first, asks for; returns the exit status."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # Without TensorFlow's start-up notes.
    _, *arguments = argv
    if arguments == ["--version"]:
        print(f"crescendo {__version__}")
        return ExitStatus.DONE
    if (text := command_help.asked_for(arguments)) is not None:
        print(text)
        return ExitStatus.DONE
    name = arguments.pop(0) if not arguments[0].startswith("-") else "train"
    try:
        command_line.check_command(name)
        command = importlib.import_module(f"trainer.commands.{name}").run
        asked = command_line.parse(name, arguments)
        if kept := subject.kept_flags(name, asked):
            asked = command_line.parse(name, arguments, kept)
        return command(asked)
    except ExitError as error:
        print(f"{error.above}crescendo {name}: {error}", file=sys.stderr)
        return error.status
    except OSError as error:  # Others are mistakes of ours.
        known = error.errno in (errno.EACCES, errno.ENAMETOOLONG)
        if error.filename is None or not (known or isinstance(error, NotRegularError)):
            raise
        remedy = "Choose a path that you can read and write."
        if isinstance(error, NotRegularError):
            remedy = "Put a regular file in its place, or delete it."
        print(f"crescendo {name}: {error.filename}: {error.strerror}.", file=sys.stderr)
        print(remedy, file=sys.stderr)
        return ExitStatus.USER_ERROR


def entry() -> None:
    """Runs main as the program, and ends the process with its status."""
    # What TensorFlow's import makes stays: looking through it every 700 objects takes 0.7 s of 7.5.
    gc.set_threshold(100_000)
    logging.use_absl_handler()
    status = 1
    try:
        status = main(sys.argv)
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except Exception as error:
        if not (isinstance(error, BrokenPipeError) and _reader_has_left()):
            traceback.print_exc()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    # The input pipeline's threads call Python: one that outlives the interpreter hangs or aborts.
    os._exit(status)


def _reader_has_left() -> bool:
    """Whether nobody reads what this prints any more, as `| head` does not."""
    output = select.poll()
    output.register(sys.stdout, 0)
    return any(event & select.POLLERR for _, event in output.poll(0))
