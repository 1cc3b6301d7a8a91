"""A benchmark that is asked for help must not begin to measure, which takes minutes."""

import pathlib
import subprocess
import sys

import pytest

FOLDER = pathlib.Path("scripts/benchmarks")
# Another program starts it in another framework's environment, and gives it its input.
INNER = "torch_updates.py"
PROGRAMS = [
    path
    for path in sorted(FOLDER.glob("*.py"))
    if "__main__" in path.read_text() and path.name != INNER
]


@pytest.mark.parametrize("path", PROGRAMS, ids=lambda path: path.stem)
def test_it_reads_its_arguments(path):
    assert ".parse_args()" in path.read_text()


@pytest.mark.parametrize("name", ["index", "stalls", "target"])
def test_it_shows_its_help(name):
    command = [sys.executable, FOLDER / f"benchmark_{name}.py", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith(f"usage: benchmark_{name}.py [-h]")
