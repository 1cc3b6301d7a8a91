"""Command lines in this process."""

import pytest

from trainer.config import command_line
from trainer.config.commands import COMMANDS
from trainer.config.flags import FLAGS, Config
from trainer.main import main


def parsed(*arguments: str, command: str = "train") -> Config:
    """Returns the Config that the program makes of a command line."""
    return command_line.parse(command, arguments)


def done(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Returns the program's status, and what it prints: stdout, stderr.

    Op determinism would stay on for all tests after it, so no run may ask for it.
    """
    capsys.readouterr()
    command = arguments[0] if arguments and arguments[0] in COMMANDS else "train"
    off = ["--nodeterministic"] if command in FLAGS["deterministic"].commands else []
    return main(["crescendo", *arguments, *off]), *capsys.readouterr()
