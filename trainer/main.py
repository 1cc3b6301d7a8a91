"""Parses the command line into a Config, runs one command, and ends with the exit status."""

import contextlib
import errno
import gc
import importlib
import os
import signal
import sys
import traceback
from collections.abc import Sequence

from absl import logging

from trainer import __version__
from trainer.api import calls
from trainer.config import command_help, command_line
from trainer.errors import ExitError, ExitStatus
from trainer.system import output, process_limits
from trainer.system.output import say
from trainer.system.regular_file import NotRegularError, ReadError


def main(argv: Sequence[str]) -> int:
    """Runs a command and returns the exit status; `argv` begins with the program's name."""
    os.environ["KERAS_BACKEND"] = "tensorflow"
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # Hides TensorFlow's start-up messages.
    name = _command(argv[1:])
    try:
        status = _run(name, argv[1:])
        output.end()
        return status
    except ExitError as error:
        say(f"{error.above}crescendo {name}: {error}", to=sys.stderr)
        return error.status
    except (OSError, MemoryError, RuntimeError, ImportError) as error:
        if not (message := _explained(error)):
            raise
        say(f"crescendo {name}: {message}", to=sys.stderr)
        return ExitStatus.USER_ERROR


def _explained(error: Exception) -> str:
    """Returns a message if the user can correct the error; "" if this program has a bug."""
    if not isinstance(error, OSError):
        return process_limits.reached(error)
    name, reason = error.filename, error.strerror
    if isinstance(error, NotRegularError):
        return f"{name}: {reason}.\nPut a regular file in its place, or delete it."
    verb = " cannot be read" if isinstance(error, ReadError) else ""
    if name is None or not (verb or error.errno in (errno.EACCES, errno.ENAMETOOLONG)):
        return ""
    return f"{name}{verb}: {reason}.\nChoose a path that you can read and write."


def _command(arguments: Sequence[str]) -> str:
    """Returns the command's name, or train if the first argument is a flag or is missing."""
    return arguments[0] if arguments and not arguments[0].startswith("-") else "train"


def _run(name: str, arguments: Sequence[str]) -> int:
    """Runs the command `name`, or prints the version or a help text if `arguments` ask for it."""
    if list(arguments) == ["--version"]:
        say(f"crescendo {__version__}")
        return ExitStatus.DONE
    if (text := command_help.asked_for(arguments)) is not None:
        say(text)
        return ExitStatus.DONE
    flags = arguments[arguments[:1] == [name] :]
    command_line.check_command(name if name != "help" else arguments[1])
    command = importlib.import_module(f"trainer.commands.{name}").run
    with calls.configured(name, flags) as config:
        return command(config)


def entry() -> None:
    """Runs the program, and ends the process with the exit status of `main`."""
    # By default, Python collects garbage after 700 new objects, which takes 0.7 s of a 7.5 s start.
    gc.set_threshold(100_000)
    output.open_closed_streams()
    logging.use_absl_handler()
    asks_for_text = "--version" in sys.argv[1:2] or command_help.asked_for(sys.argv[1:]) is not None
    output.protect(training=not asks_for_text and _command(sys.argv[1:]) in calls.TRAINING)
    status: int = ExitStatus.FAILED
    try:
        status = main(sys.argv)
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    except output.ReaderLeftError:
        pass
    except Exception:
        traceback.print_exc()
    _remove_generated_files()
    # An ordinary exit may hang or abort if a thread of the input pipeline calls Python meanwhile.
    os._exit(status)


def _remove_generated_files() -> None:
    """Removes AutoGraph's temporary files, because os._exit skips the handler that removes them."""
    for name, module in list(sys.modules.items()):
        if name.startswith("__autograph_generated_file") and module.__file__:
            with contextlib.suppress(OSError):
                os.unlink(module.__file__)
