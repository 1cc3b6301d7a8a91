"""Command lines in this process, whatever an earlier one said."""

import pytest

from trainer import config
from trainer.main import main


def parsed(*arguments: str) -> config.Config:
    """The Config that the program makes of a command line."""
    return config.from_flags(["crescendo", *arguments])


def done(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """The program's status, and what it prints: stdout, stderr.

    Op determinism would stay on for all tests after it, so that no run's flags may ask for it.
    """
    capsys.readouterr()
    return main(["crescendo", *arguments, "--nodeterministic"]), *capsys.readouterr()
