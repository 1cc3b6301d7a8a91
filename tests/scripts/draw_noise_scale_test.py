"""Draws rows of the experiment noise_scale: two seeds of its reference, and one of other points."""

import importlib
import json
import os
import pathlib
import subprocess
import sys
import tomllib

import pytest

RESULTS = pathlib.Path("docs/results")
SCRIPT = pathlib.Path("scripts/benchmarks/draw_noise_scale.py").resolve()


@pytest.fixture
def script(monkeypatch):
    """The script as a module, which imports its neighbour."""
    monkeypatch.syspath_prepend(SCRIPT.parent)
    return importlib.import_module("draw_noise_scale")


def rows(*points):
    experiment = tomllib.loads((RESULTS / "noise_scale.toml").read_text())
    for point, seed, losses in points:
        flags = [*experiment["points"][point], *experiment["flags"]]
        curve = [(epoch + 1.0, loss) for epoch, loss in enumerate(losses)]
        yield {"point": point, "seed": seed, "flags": flags, "training_losses": curve}


def test_points_of_equal_noise_scale_have_equal_numbers(script):
    """All that linear scaling makes of the reference, from B 8 to N/2, and a sixteenth of it."""
    points = tomllib.loads((RESULTS / "noise_scale.toml").read_text())["points"]
    found = script.runs(rows(*((point, 0, [1.0] * 10) for point in points)))
    assert len(found) == len(points) == 36
    (reference,) = (
        e for e in found if (e.rate, e.batch, e.momentum, e.ghost) == (0.1, 128, 0.9, 32)
    )
    assert reference.noise_scale == pytest.approx(0.1 * 20_000 / (128 * 0.1), rel=1e-2)
    scaled = [each for each in found if each.momentum == 0.9]
    for scale in (reference.noise_scale, reference.noise_scale / 16):
        batches = {e.batch for e in scaled if e.noise_scale == pytest.approx(scale, rel=1e-2)}
        assert batches == {8, 32, 128, 512, 1920, 9984}
    grid = {
        e.noise_scale for e in found if e.batch in (32, 128, 512) and e.rate in (0.025, 0.1, 0.4)
    }
    assert len(grid) == 7


def test_mean_and_deviation_over_seeds_of_the_last_three_epochs(script):
    losses = [[9.0, 3.0, 2.0, 1.0], [9.0, 5.0, 4.0, 3.0]]
    (found,) = script.runs(
        rows(*(("r0.1_b128_m0.9", seed, each) for seed, each in enumerate(losses)))
    )
    assert found.mean() == [9, 4, 3, 2]
    assert found.end() == pytest.approx((3, 2**0.5))


def test_the_pictures_are_drawn(tmp_path):
    results = tmp_path / "docs" / "results"
    results.mkdir(parents=True)
    (results / "noise_scale.toml").write_text((RESULTS / "noise_scale.toml").read_text())
    drawn = [
        *(("r0.1_b128_m0.9", 0, [0.9, 0.5, 0.4, 0.3]), ("r0.1_b128_m0.9", 1, [0.9, 0.6, 0.4, 0.3])),
        *(
            ("r0.4_b512_m0.9", 0, [1.1, 0.6, 0.5, 0.3]),
            ("r0.4_b32_m0.975", 0, [2.4, 2.3, 2.3, 2.3]),
        ),
        *(
            ("r0.025_b512_m0.9", 0, [1.3, 0.8, 0.6, 0.5]),
            ("r7.8_b9984_m0.9", 0, [9.0, 3.0, 2.3, 2.3]),
        ),
    ]
    text = "".join(json.dumps(row) + "\n" for row in rows(*drawn))
    (results / "noise_scale.jsonl").write_text(text)
    subprocess.run(
        [sys.executable, str(SCRIPT), "--folder=."],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        check=True,
    )
    names = {path.name for path in tmp_path.glob("*.png")}
    parts = ("curves", "ends", "batches")
    assert names == {f"noise_scale_{part}.png" for part in parts}
    heads = [path.read_bytes()[:4] for path in tmp_path.glob("*.png")]
    assert heads == [b"\x89PNG"] * 3
