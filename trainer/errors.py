"""Exceptions that end the program, and the exit statuses of the process.

Each message is one or two lines: what is wrong, with the value, and what the user can do.
"""

import enum


class ExitStatus(enum.IntEnum):
    """Exit statuses of the process."""

    DONE = 0
    FAILED = 1
    USER_ERROR = 2
    NOT_FINITE = 3
    NOT_SAVED = 74  # EX_IOERR of sysexits.h
    STOPPED = 75  # EX_TEMPFAIL of sysexits.h: a scheduler that sees it starts the run again.
    LOST_WORKER = 76  # A scheduler that sees it starts all workers again.


class ExitError(Exception):
    """Ends the program with its message and `status`.

    Attributes:
      status: the exit status.
      above: lines that are shown above the message, such as a traceback of the user's own code.
    """

    status: ExitStatus
    above: str = ""


class UserError(ExitError):
    """A mistake of the user; the message names the value and the remedy."""

    status = ExitStatus.USER_ERROR


class NonFiniteLossError(ExitError):
    """The loss is not finite; the last checkpoint is from before that."""

    status = ExitStatus.NOT_FINITE


class NotSavedError(ExitError):
    """The last state of a run cannot be written: the disk is full or gone."""

    status = ExitStatus.NOT_SAVED


class LostWorkerError(ExitError):
    """Another worker, or the TPU, does not answer any more."""

    status = ExitStatus.LOST_WORKER
