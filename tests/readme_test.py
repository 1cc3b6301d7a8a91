"""What the README and CONTRIBUTING name is there, and the program takes their command lines."""

import pathlib
import re
import shlex

import pytest

from trainer.commands import plan, sweep
from trainer.config import command_line
from trainer.data.tfds import sizes
from trainer.sweep import grid

PAGES = {
    name: pathlib.Path(name).read_text(encoding="utf-8")
    for name in ("README.md", "CONTRIBUTING.md")
}
RECIPES = {path.stem for path in pathlib.Path("flags").glob("*.flags")}


def command_lines(page):
    """Those of the page's indented blocks, with lines that end in a backslash joined."""
    blocks = re.findall(r"(?m)^    (?:.*\\\n)*.*", PAGES[page])
    return [line.replace("\\\n", " ").strip() for line in blocks]


OURS = [
    line for page in PAGES for line in command_lines(page) if line.startswith("python -m trainer ")
]


@pytest.mark.parametrize("line", OURS)
def test_the_program_takes_the_command_line(line, tmp_path):
    _, _, _, name, *arguments = shlex.split(line)
    asked = command_line.parse(name, arguments)
    if name == "sweep":
        assert sweep.checked(asked, grid.parse(asked.sweep), tmp_path)[1] == {}
    elif name in ("plan", "train") and not asked.dataset.startswith("image_folder:"):
        plan.planned(asked, sizes.count_examples)


def test_there_are_command_lines():
    assert {shlex.split(line)[3] for line in OURS} >= {
        "plan",
        "train",
        "evaluate",
        "sweep",
        "report",
    }


def expanded(text):
    """As a shell expands braces: a_{b,c} is a_b and a_c."""
    if not (braces := re.search(r"\{([^{}]*)\}", text)):
        return [text]
    before, after = text[: braces.start()], text[braces.end() :]
    return [each for part in braces[1].split(",") for each in expanded(before + part + after)]


@pytest.mark.parametrize("page", PAGES)
def test_the_files_that_it_names_are_there(page):
    named = re.findall(r"\b(?:flags|scripts|tests|trainer)/[\w./{},-]*\w[}/]?", PAGES[page])
    assert named
    for name in (each for text in named for each in expanded(text)):
        # A target of Bazel's has the name of a file without its suffix, and X stands for any.
        there = [pathlib.Path(path).exists() for path in (name, f"{name}.py")]
        assert any(there) or name == "flags/X.flags", name


def test_the_recipes_that_the_readme_names_are_all_there_are():
    named = re.findall(
        r"`([\w{},]*(?:fashion_mnist|cifar10|imagenet)[\w{},]*_[\w{},]*)`", PAGES["README.md"]
    )
    found = {each for name in named for each in expanded(name)}
    assert found - RECIPES <= {"fashion_mnist"}
    assert found - {"fashion_mnist"} == RECIPES
