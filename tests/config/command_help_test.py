import pathlib
import re
import subprocess
import sys

import pytest

from tests.support.configs import parsed
from trainer import __version__
from trainer.config import command_help
from trainer.config.commands import COMMANDS
from trainer.config.flags import FLAGS
from trainer.main import main


@pytest.fixture(params=[50, 100])
def columns(request, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(request.param))
    return request.param


def test_commands_and_modules_have_the_same_names():
    files = {path.stem for path in pathlib.Path("trainer/commands").glob("*.py")}
    assert files - {"__init__"} == set(COMMANDS)


def test_the_help_of_a_command_lists_exactly_its_flags(columns):
    for command in COMMANDS:
        text = command_help.asked_for([command, "--help"])
        shown = set(re.findall(r"(?m)^  --(?:\[no\])?(\w+)=?", text))
        assert shown == {name for name, flag in FLAGS.items() if command in flag.commands}
        assert COMMANDS[command].summary.split()[0] in text
        assert max(map(len, text.splitlines())) <= columns


def test_help_shows_defaults(columns):
    text = " ".join(command_help.of_command("train").split())
    assert "Length of the run, in epochs. (default: 16)" in text
    assert "Learning rate of the tuned reference. (default: 0.1)" in text
    assert "--[no]deterministic" in text


def test_help_shows_the_choices_of_the_command():
    csv = [
        command
        for command in COMMANDS
        if re.search(r"json\W+csv", command_help.of_command(command))
    ]
    assert csv == ["predict"]


@pytest.mark.parametrize(
    "arguments", [["--help"], ["-h"], ["-help"], ["help"], [], ["--epochs=2", "--help"]]
)
def test_the_overview_names_every_command(arguments, capsys):
    assert main(["crescendo", *arguments]) == 0
    out, error = capsys.readouterr()
    assert error == ""
    for command in COMMANDS:
        assert f"\n  {command} " in out


@pytest.mark.parametrize("arguments", [["train", "-h"], ["help", "train"], ["train", "--a", "-h"]])
def test_help_of_a_command_is_printed(arguments, capsys):
    assert main(["crescendo", *arguments]) == 0
    assert capsys.readouterr().out.startswith("crescendo train: Train a model in the run directory")


def test_a_value_named_help_does_not_ask_for_help():
    assert command_help.asked_for(["train", "--model_dir=help"]) is None
    assert parsed("--model_dir=help").model_dir == "help"


def test_helpfull_lists_every_flag_of_the_program(capsys):
    assert main(["crescendo", "--helpfull"]) == 0
    out = capsys.readouterr().out
    assert all(f"--{name}" in out or f"--[no]{name}" in out for name in FLAGS)
    assert "pdb" not in out  # A flag of absl's own.


def test_the_version_is_printed(capsys):
    assert main(["crescendo", "--version"]) == 0
    assert capsys.readouterr().out == f"crescendo {__version__}\n"


def test_help_of_a_mistyped_command_suggests_one(capsys):
    assert main(["crescendo", "trian", "--help"]) == 2
    assert "did you mean train?" in capsys.readouterr().err


def test_help_is_printed_without_importing_tensorflow():
    code = "import sys; from trainer.main import main; main(['x', 'train', '-h'])"
    check = "; assert not {'tensorflow', 'keras', 'numpy'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code + check], check=True, stdout=subprocess.DEVNULL)
