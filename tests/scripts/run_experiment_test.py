"""Runs a small experiment whose runs are real, stops it, goes on with it, and draws it."""

import importlib
import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests.support.forked_process import starts_of_their_own
from trainer.run_dir import lineage
from trainer.run_dir.metrics import read

FLAGS = [
    *("--model=tests.support.models:tiny", "--train_split=train[:4000]", "--epochs=1"),
    *("--eval_split=test[:500]", "--strategy=one_device"),
]


DRAWN = """
[drawn]
reference = "small/plain"
lowest = 0
[drawn.series]
"a $ series" = ["plain", "average"]
"""


def experiment(folder, *options, script="run_experiment.py"):
    script = pathlib.Path("scripts/benchmarks", script).resolve()
    return subprocess.run(
        [sys.executable, str(script), "small", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        capture_output=True,
        text=True,
        check=False,
    )


def mean_loss(folder, point):
    """The mean over all training examples, from the points that the run logged."""
    points = read(folder / "runs" / "small" / f"{point}_3" / "metrics.jsonl")
    points = [each for each in points if each["split"] == "train"]
    sizes = np.diff([0, *(each["position"] for each in points)])
    return np.average([each["loss"] for each in points], weights=sizes)


def test_it_runs_what_is_missing_appends_a_row_for_each_and_draws_them(tmp_path):
    results = tmp_path / "docs" / "results"
    results.mkdir(parents=True)
    average = ["--ema_decay=0.{seed}", "--micro_batch_size=64"]
    points = f'plain = ["--micro_batch_size=128"]\naverage = {average}\n'
    points += 'wild = ["--base_learning_rate=1e30"]'
    head = f"seeds = [3]\nflags = {json.dumps(FLAGS)}\n[points]\n"
    (results / "small.toml").write_text(f"target = 0.01\n{head}{points}")
    stopped = experiment(tmp_path, "--minutes=0")
    assert stopped.returncode == 0, stopped.stderr
    assert not (results / "small.jsonl").exists()
    with starts_of_their_own():
        first = experiment(tmp_path, "--points", "plain")
    assert first.returncode == 0, first.stderr
    assert len((results / "small.jsonl").read_text().splitlines()) == 1
    ended = experiment(tmp_path)
    assert ended.returncode == 0, ended.stderr
    *rows, wild = map(json.loads, (results / "small.jsonl").read_text().splitlines())
    assert [(row["point"], row["seed"]) for row in rows] == [("plain", 3), ("average", 3)]
    assert wild["point"] == "wild"
    assert "with learning rate 1e+30" in wild["diverged"]
    for row in rows:
        kept = json.loads(
            (tmp_path / "runs" / "small" / f"{row['point']}_3" / "result.json").read_text()
        )
        assert row["top1"] == kept["top1"]
        assert row["updates"] == 32
        ((seconds, top1),) = row["evaluations"]
        assert top1 == row["top1"]
        assert 0.9 * row["seconds"] < seconds < 1.1 * row["seconds"]
        ((epoch, loss),) = row["training_losses"]
        assert (epoch, loss) == (1.024, pytest.approx(mean_loss(tmp_path, row["point"]), abs=1e-5))
    assert rows[0]["noise_scales"] == []  # Batches of one micro-batch.
    assert [each[:2] for each in rows[1]["noise_scales"]] == [[1.024, 128]]
    assert rows[1]["noise_scales"][0][2] > 0
    assert rows[1]["plain"]["loss"] != rows[1]["ema"]["loss"]
    before = (results / "small.jsonl").read_text()
    again = experiment(tmp_path, "--table")
    assert (results / "small.jsonl").read_text() == before
    assert again.stdout == ended.stdout[-len(again.stdout) :]
    assert f"{100 * rows[0]['top1']:.2f}% (n = 1)  32 updates" in again.stdout
    assert "\nwild                  1 diverged\n" in again.stdout
    assert f"to 1%: {rows[0]['evaluations'][0][0]:,.0f} s (1 of 1)" in again.stdout
    (results / "small.toml").write_text(f"{head}{points}{DRAWN}")
    drawn = experiment(tmp_path, "--output=small.png", script="draw_experiment.py")
    assert drawn.returncode == 0, drawn.stderr
    assert (tmp_path / "small.png").read_bytes().startswith(b"\x89PNG")
    # A row of other flags is neither shown nor counted.
    (results / "small.toml").write_text(f'{head}plain = ["--weight_decay=0"]')
    other = experiment(tmp_path, "--minutes=0")
    assert (other.returncode, other.stdout.strip()) == (0, "")


@pytest.mark.parametrize(
    ("of_all", "of_one"),
    [
        ("--flagfile=all.flags", "--base_learning_rate=0.2"),
        ("--flagfile=all.flags", "--flagfile=one.flags"),
        ("--deterministic", "--nodeterministic"),
    ],
)
def test_a_flag_of_a_point_that_the_flags_of_all_points_override_is_refused(
    tmp_path, of_all, of_one
):
    """Refuses it, because points would be equal without notice."""
    (tmp_path / "docs/results").mkdir(parents=True)
    (tmp_path / "all.flags").write_text("--base_learning_rate=0.1\n")
    points = f'[points]\none = []\ntwo = ["{of_one}"]\n'
    text = f'seeds = [0]\nflags = ["{of_all}"]\n{points}'
    (tmp_path / "docs/results/small.toml").write_text(text)
    done = experiment(tmp_path)
    assert done.returncode == 2
    assert f"two: {of_one} is overridden by a flag of all points" in done.stderr


def test_losses_and_seconds_of_a_fork_are_those_of_its_own_updates(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend("scripts/benchmarks")
    script = importlib.import_module("run_experiment")
    begin = {"batch_size": 50, "learning_rate": 0.1, "momentum": 0.9, "noise_scale": 20.0}
    setting = dict(begin)
    rows = []
    for position, loss in ((850, 0.6), (900, 0.3), (1000, 0.3)):
        setting |= {"update": position // 50, "position": position, "epoch": position / 100}
        speed = {"gradient_norm": 1.0, "examples_per_second": 10.0}
        rows.append(setting | speed | {"split": "train", "loss": loss, "top1": 0.5, "time": 1.0})
    rows.append(setting | {"split": "eval", "loss": 0.4, "top1": 0.7, "top5": 1.0, "time": 1.0})
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    whole = [(10.0, pytest.approx((850 * 0.6 + 150 * 0.3) / 1000, abs=1e-5))]
    assert script.training_losses(tmp_path) == whole
    assert script.evaluations(tmp_path) == [(100.0, 0.7)]
    origin = {"run": "x", "fork_from": "x@16", "update": 16, "epoch": 8.0, "flags": []}
    origin |= {"before": begin, "after": begin, "evaluations": {}}
    lineage.write(tmp_path, lineage.Lineage(position=800, **origin))
    assert script.training_losses(tmp_path) == [(10.0, pytest.approx(0.375, abs=1e-5))]
    assert script.evaluations(tmp_path) == [(20.0, 0.7)]
    # With --fork_position=0, a fork's own positions begin at 0.
    lineage.write(tmp_path, lineage.Lineage(position=5000, **origin))
    assert script.training_losses(tmp_path) == whole
