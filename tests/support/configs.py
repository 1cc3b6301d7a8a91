"""Command lines in this process."""

from collections.abc import Iterator

import pytest

from trainer.config import command_line
from trainer.config.commands import COMMANDS
from trainer.config.flags import FLAGS, Config
from trainer.main import main
from trainer.schedule.layout import lay_out
from trainer.schedule.noise_scale import Setting
from trainer.schedule.plan import Layouts
from trainer.schedule.trajectory import Trajectory


def parsed(*arguments: str, command: str | None = None) -> Config:
    """Returns the Config that the program makes of a command line.

    A command that is not given is `train`, or the first that takes all the flags.
    """
    names = [argument.lstrip("-").partition("=")[0] for argument in arguments]
    flags = [FLAGS[name] for name in names if name in FLAGS]
    taking = (name for name in COMMANDS if all(name in flag.commands for flag in flags))
    if all("train" in flag.commands for flag in flags):
        taking = iter(["train"])
    return command_line.parse(command or next(taking), arguments)


def done(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    """Returns the program's status, and what it prints: stdout, stderr.

    Op determinism would stay on for all tests after it, so no run may ask for it. A run that asks
    for no precision is in float32 on every processor, because its numbers are compared.
    """
    capsys.readouterr()
    command = arguments[0] if arguments and arguments[0] in COMMANDS else "train"
    off = ["--nodeterministic"] if command in FLAGS["deterministic"].commands else []
    if command in ("train", "range_test") and not any("precision" in each for each in arguments):
        off += ["--precision=float32"]
    return main(["crescendo", *arguments, *off]), *capsys.readouterr()


def updates(run: Trajectory) -> Iterator[tuple[int, Setting]]:
    """Yields position and Setting of every update, one by one: what spans count at once."""
    position, end = 0, run.end
    while position < end:
        setting = run.at(position)
        yield position, setting
        position += setting.batch_size


def layouts(config: Config, replicas: int = 1, micro_batch_size: int = 128) -> Layouts:
    """Returns batch size → layout on so many replicas; the image size has no influence."""
    return lambda size, _: lay_out(size, replicas, config.ghost_batch_size, micro_batch_size)
