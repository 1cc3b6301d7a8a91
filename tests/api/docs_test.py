"""Runs every example of docs/python.md, in the order of the page, in one process."""

import ast
import importlib.util
import pathlib
import re

import pytest

PAGE = pathlib.Path("docs/python.md")
TEXT = PAGE.read_text(encoding="utf-8")


def blocks(text):
    """Returns the line number and the code of each indented block."""
    found = re.finditer(r"(?m)(?:^    .*\n(?:\n+(?=    ))?)+", text)
    return [
        (text[: block.start()].count("\n") + 1, re.sub(r"(?m)^    ", "", block[0]))
        for block in found
    ]


BLOCKS = blocks(TEXT)


def missing(code):
    """Returns the first package that the code imports and this environment lacks, or ""."""
    names = [
        alias.name.partition(".")[0]
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Import)
        for alias in node.names
    ]
    return next((name for name in names if importlib.util.find_spec(name) is None), "")


def test_only_loggers_are_missing():
    assert {missing(code) for _, code in BLOCKS} <= {"", "wandb", "mlflow"}


def test_the_page_shows_every_public_name():
    import trainer

    # GradientNoise and the rest are named in prose too.
    assert [name for name in trainer.__all__ if name not in TEXT] == []


def test_the_examples_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "__main__"}
    for line, code in BLOCKS:
        if missing(code):
            continue
        padded = "\n" * (line - 1) + code  # So that a traceback names the line of the page.
        exec(compile(padded, str(PAGE), "exec"), names)
    assert names["result"]["top1"] > 0.25
    assert (tmp_path / "runs" / "pictures" / "result.json").exists()
    assert names["noise"].scale > 0


@pytest.mark.parametrize("package", ["wandb", "mlflow"])
def test_a_logger_takes_three_lines(package):
    (code,) = [code for _, code in BLOCKS if missing(code) == package or package in code]
    assert len(ast.parse(code).body) <= 3
