"""Flags → Config → one command; the exit status says how it ended."""

import contextlib
import errno
import gc
import os
import select
import signal
import sys
import traceback
from collections.abc import Sequence

from absl import app, logging

from trainer import config
from trainer.cluster import limits
from trainer.commands import by_name
from trainer.regular_file import NotRegularError, ReadError
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
        command = by_name.command(name)
        asked = config.from_flags([program, *rest], "runs" if name == "report" else None)
        return command(subject.with_kept_flags(name, asked, program, rest))
    except config.ExitError as error:
        print(f"{error.above}crescendo {name}: {error}", file=sys.stderr)
        return error.status
    except OSError as error:  # Others are mistakes of ours.
        known = error.errno in (errno.EACCES, errno.ENAMETOOLONG)
        unread = isinstance(error, NotRegularError | ReadError)
        if error.filename is None or not (known or unread):
            raise
        remedy = "Choose a path that you can read and write."
        if isinstance(error, NotRegularError):
            remedy = "Put a regular file in its place, or delete it."
        verb = " cannot be read" if isinstance(error, ReadError) else ""
        print(f"crescendo {name}: {error.filename}{verb}: {error.strerror}.", file=sys.stderr)
        print(remedy, file=sys.stderr)
        return config.UserError.status
    except (MemoryError, RuntimeError, ImportError) as error:
        if not (said := limits.reached(error)):
            raise
        print(f"crescendo {name}: {said}", file=sys.stderr)
        return config.UserError.status


def entry() -> None:
    """The program: absl's --help flags, then main."""
    # What TensorFlow's import makes stays: looking through it every 700 objects takes 0.7 s of 7.5.
    gc.set_threshold(100_000)
    app.define_help_flags()
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
