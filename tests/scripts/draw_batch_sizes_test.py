"""Draws rows of an experiment by batch size: a line for each condition, or a map with the rates."""

import importlib
import json
import pathlib

import pytest
from matplotlib.figure import Figure

FOLDER = pathlib.Path("scripts/benchmarks").resolve()


def drawn(folder, monkeypatch, picture, points, rows):
    """Returns the axes of an experiment's picture."""
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.chdir(folder)
    results = folder / "docs" / "results"
    results.mkdir(parents=True)
    named = "".join(f"{name} = {json.dumps(flags)}\n" for name, flags in points.items())
    (results / "small.toml").write_text(f'flags = ["--epochs=2"]\n[points]\n{named}')
    for row in rows:
        row["flags"] = [*points[row["point"]], "--epochs=2"]
    (results / "small.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    figure = Figure()
    importlib.import_module("draw_batch_sizes").drawer("small", {"picture": picture})(figure)
    (axes,) = figure.axes
    return axes


def row(point, seed, top1):
    result = {"diverged": "the loss is not finite"} if top1 is None else {"top1": top1}
    return {"point": point, "seed": seed, **result}


def test_a_line_joins_what_differs_in_the_batch_size_alone(tmp_path, monkeypatch):
    points = {
        f"{kind}_{batch}": [f"--augment={kind}", f"--initial_batch_size={batch}"]
        for kind in ("none", "medium")
        for batch in (128, 512)
    }
    rows = [row("none_512", 0, 0.5), row("none_512", 1, 0.7), row("none_128", 0, 0.9)]
    rows += [row("medium_128", 0, 0.8), row("medium_512", 0, 0.4), row("medium_512", 1, None)]
    axes = drawn(tmp_path, monkeypatch, "lines", points, rows)
    curves, labels = axes.get_legend_handles_labels()
    assert labels == ["augment=none", "augment=medium"]
    found = [each[0].get_xydata().tolist() for each in curves]
    assert found == [[[128, pytest.approx(90)], [512, 60]], [[128, 80], [512, 40]]]


def test_a_map_has_a_cell_for_each_rate_and_batch_size(tmp_path, monkeypatch):
    points = {
        f"e{k}_b{batch}": [
            f"--base_learning_rate={2.0**-k}",
            f"--initial_batch_size={batch}",
            f"--ghost_batch_size={min(batch, 32)}",
        ]
        for k in (4, 6)
        for batch in (8, 32)
    }
    rows = [row("e4_b8", 0, 0.9), row("e4_b32", 0, None), row("e6_b8", 0, 0.8)]
    rows += [row("e6_b32", 0, 0.7)]
    axes = drawn(tmp_path, monkeypatch, "map", points, rows)
    # Rates rise from below, and sizes to the right; one point diverged.
    assert [each.get_text() for each in axes.texts] == ["80.0", "70.0", "90.0", "×"]
