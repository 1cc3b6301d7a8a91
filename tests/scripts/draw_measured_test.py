"""Draws measured noise scales: medians of half epochs over seeds, and batch sizes beside them."""

import importlib
import json
import pathlib

import pytest
from matplotlib.figure import Figure

FOLDER = pathlib.Path("scripts/benchmarks").resolve()


@pytest.fixture
def script(monkeypatch, tmp_path):
    """The module; plain has two seeds, and adam the noise scales of both metrics."""
    monkeypatch.syspath_prepend(FOLDER)
    monkeypatch.chdir(tmp_path)
    results = tmp_path / "docs" / "results"
    results.mkdir(parents=True)
    (results / "small.toml").write_text("flags = []\n[points]\nplain = []\nadam = []\n")
    first = [[0.1, 32, 10.0], [0.2, 32, 30.0], [0.4, 32, 90.0], [0.6, 64, 100.0]]
    second = [[0.5, 16, 5.0, 7.0], [0.6, 16, 5.0]]
    rows = [
        {"point": "plain", "seed": 0, "flags": [], "noise_scales": first},
        {"point": "plain", "seed": 1, "flags": [], "noise_scales": [[0.7, 64, 300.0]]},
        {"point": "adam", "seed": 0, "flags": [], "noise_scales": second},
    ]
    (results / "small.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return importlib.import_module("draw_measured")


def test_a_half_epoch_has_its_median_over_seeds(script):
    assert script.measured("small", "plain") == [(0.2, 32, 30.0), (pytest.approx(0.65), 64, 200.0)]
    assert script.measured("small", "adam") == [(0.5, 16, 7.0)]


def test_each_panel_has_the_noise_scale_and_the_batch_size_of_its_points(script):
    figure = Figure()
    script.drawer("small", {"panels": {"SGD": ["plain"], "Adam": ["adam"]}})(figure)
    sgd, adam = figure.axes
    assert [each.get_ydata().tolist() for each in sgd.lines] == [[30.0, 200.0], [32.0, 64.0]]
    assert [each.get_ydata().tolist() for each in adam.lines] == [[7.0], [16]]
    assert [each.get_text() for each in sgd.texts] == ["plain"]
