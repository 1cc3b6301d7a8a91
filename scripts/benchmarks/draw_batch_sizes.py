"""Draws top-1 against batch size, as the program's report does, from an experiment's rows.

With "lines", a line joins runs that differ only in the batch size and the seed. With "map", each
cell has a learning rate and a batch size; a cell whose runs diverged has a cross.
"""

from collections.abc import Callable, Mapping
from typing import Any

from experiment_rows import RESULTS, current, read_experiment, read_rows
from matplotlib.figure import Figure

from trainer.reports.batch_size_plots import against_batch, heat_maps
from trainer.reports.conditions import conditions
from trainer.reports.run_record import DIVERGED, RunRecord


def record(row: Mapping[str, Any], experiment: Mapping[str, Any]) -> RunRecord:
    """Returns the report's record of a run. Its flags are those of its point alone."""
    typed = [flag.lstrip("-").partition("=") for flag in experiment["points"][row["point"]]]
    flags = {name: value for name, _, value in typed} | {"seed": str(row["seed"])}
    name = f"{row['point']}_{row['seed']}"
    if "diverged" in row:
        return RunRecord(name, flags, points=[], result=None, state=DIVERGED, notes=[])
    return RunRecord(name, flags, points=[], result=dict(row), state="finished", notes=[])


def drawer(name: str, section: Mapping[str, str]) -> Callable[[Figure], None]:
    """Returns the function that draws the `picture` of the experiment: "lines" or "map"."""
    experiment = read_experiment(name)
    rows = current(experiment, read_rows(RESULTS / f"{name}.jsonl"))
    found = conditions([record(row, experiment) for row in rows])
    (picture,) = {"lines": against_batch, "map": heat_maps}[section["picture"]](found)
    return picture.draw
