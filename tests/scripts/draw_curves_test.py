"""Draws curves of rows of an experiment and of another one, with labels that do not overlap."""

import importlib
import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

SCRIPT = pathlib.Path("scripts/benchmarks/draw_experiment.py").resolve()


@pytest.fixture
def script(monkeypatch):
    """The module of the curves, which imports its neighbour."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    return importlib.import_module("draw_curves")


def test_labels_stand_apart_in_their_order_and_near_their_curves(script):
    assert script.apart([0.9, 0.1, 0.5], 0.1) == [0.9, 0.1, 0.5]
    assert script.apart([0.5, 0.5, 0.5], 0.1) == [0.4, 0.5, 0.6]
    # Two pairs that touch after each of them was separated.
    assert script.apart([0.3, 0.3, 0.39, 0.39], 0.1) == [0.195, 0.295, 0.395, 0.495]
    random = np.random.default_rng(0)
    for count in range(1, 9):
        wanted = [*random.uniform(0, 1, count)]
        places = script.apart(wanted, 0.06)
        assert np.argsort(places).tolist() == np.argsort(wanted).tolist()
        assert np.all(np.diff(sorted(places)) > 0.06 - 1e-5)
        assert np.mean(places) == pytest.approx(np.mean(wanted), abs=1e-5)


def test_a_curve_is_the_mean_over_seeds_of_the_runs_that_did_not_diverge(
    script, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    write(tmp_path)
    label, spreads = script.curve("small", "other/plain")
    assert label == "plain, 1,234 updates"
    assert [each.mean for each in spreads] == pytest.approx([0.5, 0.9])
    assert [each.deviation for each in spreads] == pytest.approx([0.1 * 2**0.5, 0])
    with pytest.raises(SystemExit, match=r"wild has no row in docs/results/small.jsonl"):
        script.curve("small", "wild")


def write(folder):
    """Two experiments. In the second one, one run diverged, and one has other flags."""
    results = folder / "docs" / "results"
    results.mkdir(parents=True)
    (results / "small.toml").write_text(
        'flags = []\n[curves]\nlowest = 40\npoints = ["a $ point", "other/plain"]\n'
        '[points]\n"a $ point" = []\nwild = []\n'
    )
    (results / "other.toml").write_text('flags = ["--epochs=2"]\n[points]\nplain = []\n')
    base = {"updates": 1234, "flags": []}
    runs = [base | {"point": "a $ point", "seed": 0, "evaluations": [[1.0, 0.6], [2.0, 0.8]]}]
    runs += [{"point": "wild", "seed": 0, "flags": [], "diverged": "the loss is not finite"}]
    (results / "small.jsonl").write_text("".join(json.dumps(each) + "\n" for each in runs))
    base = {"point": "plain", "updates": 1234, "flags": ["--epochs=2"]}
    runs = [base | {"seed": k, "evaluations": [[1.0, 0.4 + k / 5], [2.0, 0.9]]} for k in (0, 1)]
    runs += [base | {"seed": 2, "diverged": "the loss is not finite"}]
    runs += [base | {"seed": 3, "flags": [], "evaluations": [[1.0, 0.1], [2.0, 0.1]]}]
    (results / "other.jsonl").write_text("".join(json.dumps(each) + "\n" for each in runs))


def test_the_picture_is_drawn(tmp_path, monkeypatch):
    write(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(pathlib.Path.cwd()))
    command = [sys.executable, str(SCRIPT), "small", "--output=small.png"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert (tmp_path / "small.png").read_bytes().startswith(b"\x89PNG")
    # An experiment without a picture says so.
    command[2] = "other"
    refused = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert refused.returncode == 2
    assert (
        "other.toml must have one section of: drawn, curves, batch_sizes, noise_scales"
        in refused.stderr
    )
