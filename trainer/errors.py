"""Exceptions that end the program, and the program's exit statuses.

Each message has one or two lines. They name the problem, the wrong value and a remedy.
"""

import enum


class ExitStatus(enum.IntEnum):
    """Exit statuses of the program."""

    DONE = 0
    FAILED = 1
    USER_ERROR = 2
    NOT_FINITE = 3
    NOT_SAVED = 74  # EX_IOERR of sysexits.h
    STOPPED = 75  # EX_TEMPFAIL of sysexits.h: the scheduler should start the run again.
    LOST_WORKER = 76  # The scheduler should start all workers again.
    OTHER_WORKERS = 77  # The scheduler should start as many workers as workers.json says.


class ExitError(Exception):
    """Error that ends the program, which prints the message and exits with `status`.

    Attributes:
      status: the exit status.
      above: lines to print above the message, such as a traceback of the user's own code.
    """

    status: ExitStatus
    above: str = ""


class UserError(ExitError):
    """An error that the user can correct; the message names the value and the remedy."""

    status = ExitStatus.USER_ERROR


class NonFiniteLossError(ExitError):
    """The loss is not finite (nan or infinite)."""

    status = ExitStatus.NOT_FINITE


class NotSavedError(ExitError):
    """The final state of a run cannot be written, for example because the disk is full."""

    status = ExitStatus.NOT_SAVED


class TryAgainError(ExitError):
    """The same command may succeed later, for example when a bucket answers again."""

    status = ExitStatus.STOPPED


class LostWorkerError(ExitError):
    """Another worker, or the TPU, has stopped answering."""

    status = ExitStatus.LOST_WORKER
