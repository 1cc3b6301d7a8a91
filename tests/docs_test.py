"""Tests that the documents name existing files and links, and that their commands are valid."""

import pathlib
import re
import shlex

import pytest

from trainer.commands import plan, sweep
from trainer.config import command_line
from trainer.data.tfds import sizes
from trainer.sweep import grid
from trainer.sweep.sweep_folder import SweepFolder

PATHS = [pathlib.Path("README.md"), pathlib.Path("CONTRIBUTING.md")]
PATHS += sorted(pathlib.Path("docs").glob("**/*.md"))
PAGES = {str(path): path.read_text(encoding="utf-8") for path in PATHS}
RECIPES = {path.stem for path in pathlib.Path("flags").glob("*.flags")}


def command_lines(text):
    """Returns the lines of the page's indented blocks, joined where a line ends in a backslash."""
    blocks = re.findall(r"(?m)^    (?:.*\\\n)*.*", text)
    return [line.replace("\\\n", " ").strip() for line in blocks]


def program_arguments(line):
    """Returns the command and the arguments of the trainer in a command line, or None.

    A launcher passes the flags from --flagfile on to `train`.
    """
    if line.startswith(("python -m trainer ", "crescendo ")):
        _, command, *arguments = shlex.split(line.replace("python -m trainer", "crescendo"))
        return command, arguments
    if line.startswith(("scripts/", "sbatch ")) and "--flagfile=" in line:
        own = ["--strategy=multi_worker"] if re.search(r"launch_local|sbatch", line) else []
        return "train", own + shlex.split(line[line.index("--flagfile=") :])
    return None


LINES = [
    pytest.param(*parts, id=f"{page}: {line}")
    for page, text in PAGES.items()
    for line in command_lines(text)
    if (parts := program_arguments(line))
]


@pytest.mark.parametrize("name, arguments", LINES)
def test_the_program_takes_the_command_line(name, arguments, tmp_path):
    asked = command_line.parse(name, arguments)
    if name == "sweep":
        assert sweep.checked(asked, grid.parse(asked.sweep), SweepFolder(tmp_path))[1] == {}
    elif name in ("plan", "train") and not asked.dataset.startswith("image_"):
        plan.planned(asked, sizes.count_examples)


def test_a_run_directory_has_one_meaning_in_all_pages():
    """A reader of several pages is not refused because a directory holds another run already."""
    found = {}
    for name, arguments in (line.values for line in LINES):
        folders = [each for each in arguments if each.startswith("--model_dir=runs/")]
        if name in ("train", "range_test", "sweep") and folders:
            learned = {*arguments} - {*folders}
            learned = {a for a in learned if not a.startswith(("--workers", "--strategy"))}
            found.setdefault(folders[0], set()).add((name, *sorted(learned)))
    assert {folder: runs for folder, runs in found.items() if len(runs) > 1} == {}


def test_each_command_has_a_command_line():
    names = {line.values[0] for line in LINES}
    assert names == {
        *("plan", "train", "range_test", "sweep", "evaluate", "export", "predict", "convert"),
        "report",
    }


def expanded(text):
    """Returns what a shell makes of braces: a_b and a_c for a_{b,c}."""
    if not (braces := re.search(r"\{([^{}]*)\}", text)):
        return [text]
    before, after = text[: braces.start()], text[braces.end() :]
    return [name for part in braces[1].split(",") for name in expanded(before + part + after)]


def named_files(text):
    """Returns the paths of repository files that a page names, with braces expanded."""
    folders = r"(?<![\w/])(?:docs|flags|scripts|tests|trainer)/"
    return {
        name
        for match in re.findall(folders + r"[\w./{},-]*\w[}/]?", text)
        for name in expanded(match)
    }


@pytest.mark.parametrize("page", PAGES)
def test_the_files_that_a_page_names_exist(page):
    for name in named_files(PAGES[page]):
        # A Bazel target has the name of a file without its suffix; X stands for any recipe.
        exists = [pathlib.Path(path).exists() for path in (name, f"{name}.py")]
        assert any(exists) or name == "flags/X.flags", name


def test_readme_and_contributing_name_files():
    assert all(named_files(PAGES[page]) for page in ("README.md", "CONTRIBUTING.md"))


def test_the_documents_name_every_recipe_and_no_other():
    pattern = r"`([\w{},]*(?:fashion_mnist|cifar10|imagenet|photographs)[\w{},]*_[\w{},]*)`"
    named = {
        name for text in PAGES.values() for m in re.findall(pattern, text) for name in expanded(m)
    }
    assert named - {"fashion_mnist"} == RECIPES


def anchors(text):
    """Returns the anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"(?m)^#+ (.*)$", text)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def links(text):
    """Returns the targets of a page's links and pictures inside the repository."""
    targets = re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text)
    return [target for target in targets if "://" not in target]


@pytest.mark.parametrize("page", PAGES)
def test_each_link_leads_to_a_file_and_a_heading(page):
    for target in links(PAGES[page]):
        name, _, anchor = target.partition("#")
        path = (pathlib.Path(page).parent / name).resolve() if name else pathlib.Path(page)
        assert path.is_file(), target
        assert not anchor or anchor in anchors(path.read_text(encoding="utf-8")), target


def test_the_readme_links_to_every_page():
    targets = {target.partition("#")[0] for target in links(PAGES["README.md"])}
    assert targets >= PAGES.keys() - {"README.md"}


def test_every_picture_of_the_documents_is_shown():
    shown = {
        (pathlib.Path(page).parent / target).resolve()
        for page, text in PAGES.items()
        for target in links(text)
    }
    assert set(pathlib.Path("docs/pictures").resolve().iterdir()) <= shown


def test_the_readme_has_fewer_than_220_lines():
    assert len(PAGES["README.md"].splitlines()) < 220
