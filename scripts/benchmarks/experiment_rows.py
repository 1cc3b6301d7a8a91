"""Reads an experiment's points, and the rows of its finished runs.

run_experiment.py says what docs/results/NAME.toml and docs/results/NAME.jsonl hold.
"""

import json
import pathlib
import tomllib
from typing import Any

RESULTS = pathlib.Path("docs/results")


def read_experiment(name: str) -> dict[str, Any]:
    """Returns the content of docs/results/NAME.toml."""
    return tomllib.loads((RESULTS / f"{name}.toml").read_text())


def flags_of(experiment: dict[str, Any], point: str) -> list[str]:
    """Returns the flags of a point's runs, without the seed."""
    return [*experiment["points"][point], *experiment["flags"]]


def read_rows(path: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the rows of a .jsonl file; [] if it does not exist."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def current(experiment: dict[str, Any], rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Returns the rows whose points the experiment has, with the same flags."""
    wanted = {point: flags_of(experiment, point) for point in experiment["points"]}
    return [row for row in rows if row["flags"] == wanted.get(row["point"])]


def finished(name: str, point: str) -> list[dict[str, Any]]:
    """Returns the rows of a point of the experiment `name` whose runs did not diverge.

    A point of another experiment is written as NAME/POINT.

    Raises:
      SystemExit: if there is none.
    """
    other, _, point = point.rpartition("/")
    rows = current(read_experiment(other or name), read_rows(RESULTS / f"{other or name}.jsonl"))
    rows = [row for row in rows if row["point"] == point and "diverged" not in row]
    if not rows:
        raise SystemExit(f"{point} has no row in {RESULTS / (other or name)}.jsonl")
    return rows
