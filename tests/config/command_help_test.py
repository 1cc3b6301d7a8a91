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


def test_every_command_is_a_module_and_every_module_a_command():
    files = {path.stem for path in pathlib.Path("trainer/commands").glob("*.py")}
    assert files - {"__init__"} == set(COMMANDS)


def test_each_flag_is_in_the_help_of_its_commands_alone(columns):
    for command in COMMANDS:
        text = command_help.asked_for([command, "--help"])
        shown = set(re.findall(r"(?m)^  --(?:\[no\])?(\w+)=?", text))
        assert shown == {name for name, flag in FLAGS.items() if command in flag.commands}
        assert COMMANDS[command].summary.split()[0] in text
        assert max(map(len, text.splitlines())) <= columns


def test_every_default_is_shown(columns):
    text = " ".join(command_help.of_command("train").split())
    assert "Length of the run, in epochs. (default: 16)" in text
    assert "Learning rate of the tuned reference. (default: 0.1)" in text
    assert "--[no]deterministic" in text


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
def test_a_commands_help(arguments, capsys):
    assert main(["crescendo", *arguments]) == 0
    assert capsys.readouterr().out.startswith("crescendo train: Train a run in its directory")


def test_a_value_may_be_called_help():
    assert command_help.asked_for(["train", "--model_dir=help"]) is None
    assert parsed("--model_dir=help").model_dir == "help"


def test_every_flag_at_once(capsys):
    assert main(["crescendo", "--helpfull"]) == 0
    out = capsys.readouterr().out
    assert all(f"--{name}" in out or f"--[no]{name}" in out for name in FLAGS)
    assert "pdb" not in out  # absl's own


def test_the_version(capsys):
    assert main(["crescendo", "--version"]) == 0
    assert capsys.readouterr().out == f"crescendo {__version__}\n"


def test_help_of_a_mistyped_command_suggests_one(capsys):
    assert main(["crescendo", "trian", "--help"]) == 2
    assert "did you mean train?" in capsys.readouterr().err


def test_the_program_answers_without_tensorflow():
    code = "import sys; from trainer.main import main; main(['x', 'train', '-h'])"
    check = "; assert not {'tensorflow', 'keras', 'numpy'} & {*sys.modules}"
    subprocess.run([sys.executable, "-c", code + check], check=True, stdout=subprocess.DEVNULL)
