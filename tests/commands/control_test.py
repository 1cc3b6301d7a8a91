"""Runs that decide their own batches, in processes of their own."""

import json

import pytest
import tensorflow as tf

from tests.support.runs import (
    OFTEN,
    SHORT,
    as_of,
    digest,
    kill_after,
    newest,
    points,
    result,
    started,
    train,
)

# Accuracies of a tiny model on 1,000 images wobble: a gain below 2 points is none.
PLATEAU = [
    *SHORT,
    *("--epochs=6", "--anneal=plateau", "--anneal_epochs=", "--eval_every_epochs=0.25"),
    *("--min_improvement=0.02", "--patience=2", "--cooldown=1", "--max_anneals=2"),
    "--keep_checkpoints=25",  # Those of all evaluations.
]


@pytest.fixture(scope="module")
def plateau(tmp_path_factory):
    model_dir = tmp_path_factory.mktemp("plateau") / "run"
    return model_dir, train(model_dir, *PLATEAU)


def memory(model_dir):
    """Returns the state of the controller in the newest checkpoint."""
    reader = tf.train.load_checkpoint(str(newest(model_dir) / "checkpoint"))
    return json.loads(reader.get_tensor("progress/.ATTRIBUTES/VARIABLE_VALUE"))["control"]


def decisions(model_dir):
    return [p["decision"] for p in points(model_dir, "eval") if "decision" in p]


def test_a_plateau_grows_the_batch_and_the_last_ends_the_run(plateau):
    model_dir, done = plateau
    first, second, last = decisions(model_dir)
    assert "annealing step 1 of 2, the noise scale is divided by 5" in first
    assert "annealing step 2 of 2" in second
    assert "after 2 annealing steps, the run ends" in last
    assert f"{first}; batch 32 → 160, learning rate 0.1 → 0.1" in done.stdout
    sizes = [point["batch_size"] for point in points(model_dir)]
    assert sorted(set(sizes)) == [32, 160, 800]
    assert sizes == sorted(sizes)
    assert result(model_dir)["epochs"] < 6
    assert result(model_dir)["traces"] == 1
    assert result(model_dir)["top1"] == points(model_dir, "eval")[-1]["top1"]


def test_stopped_and_killed_in_the_midst_of_patience_and_cooldown(plateau, tmp_path):
    evaluations = points(plateau[0], "eval")
    step = next(i for i, point in enumerate(evaluations) if "decision" in point)
    before, there = evaluations[step - 1 : step + 1]
    model_dir = as_of(plateau[0], tmp_path / "killed", before["update"])
    remembered = [memory(model_dir)]
    train(model_dir, *PLATEAU, f"--stop_at_epoch={there['epoch'] + 0.01}")
    remembered.append(memory(model_dir))
    assert [(now["waited"], now["cooling"]) for now in remembered] == [(1, 0), (0, 1)]
    kill_after(started(model_dir, *PLATEAU, OFTEN), model_dir, 1)
    train(model_dir, *PLATEAU)
    assert decisions(model_dir) == decisions(plateau[0])
    assert digest(model_dir) == digest(plateau[0])


def test_the_same_plateaus_by_the_rate(tmp_path):
    model_dir = tmp_path / "rate"
    train(model_dir, *PLATEAU, "--anneal_with=hybrid", "--batch_anneals=1")
    assert len(decisions(model_dir)) == 3
    found = {(p["batch_size"], round(p["learning_rate"], 6)) for p in points(model_dir)}
    assert found == {(32, 0.1), (160, 0.1), (160, 0.02)}


def test_what_a_controller_decides_by_is_learned(plateau):
    done = train(plateau[0], *PLATEAU, "--eval_every_epochs=1", status=2)
    assert "--eval_every_epochs: 0.25 → 1.0" in done.stderr


MEASURED = [
    *SHORT,
    *("--anneal=measured", "--anneal_epochs=", "--noise_horizon=500", "--growth_threshold=1.5"),
    "--micro_batch_size=0",
]


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    model_dir = tmp_path_factory.mktemp("measured") / "run"
    return model_dir, train(model_dir, *MEASURED)


def grown(model_dir):
    return [(p["position"], p["decision"]) for p in points(model_dir) if "decision" in p]


def test_the_batch_follows_the_gradient_noise(measured):
    model_dir, done = measured
    decisions = grown(model_dir)
    assert decisions
    for _, decision in decisions:
        assert decision.startswith("the gradient noise scale is ")
        assert f"{decision}; batch " in done.stdout
    found = points(model_dir)
    assert all(point["gradient_noise_scale"] > 0 for point in found)
    sizes = [point["batch_size"] for point in found]
    assert sizes == sorted(sizes)
    assert max(sizes) > 32
    for point in found:
        assert point["learning_rate"] == pytest.approx(0.1 * point["batch_size"] / 32)
    assert result(model_dir)["traces"] == 1


def test_killed_in_the_midst_of_smoothing(measured, tmp_path):
    first = points(measured[0], "eval")[0]["update"]  # Of three evaluations.
    model_dir = as_of(measured[0], tmp_path / "killed", first)
    later = int(0.6 * result(measured[0])["updates"])
    kill_after(started(model_dir, *MEASURED, OFTEN), model_dir, later)
    train(model_dir, *MEASURED, OFTEN)
    assert points(model_dir) == points(measured[0])
    assert digest(model_dir) == digest(measured[0])


def test_the_micro_batch_is_part_of_what_is_learned(measured, tmp_path):
    done = train(measured[0], *MEASURED, "--micro_batch_size=8", status=2)
    assert "--micro_batch_size: 0 → 8" in done.stderr
    # Two replicas take the same micro-batches, and so measure the same.
    train(tmp_path / "two", *MEASURED, "--virtual_devices=2")
    assert [p["batch_size"] for p in points(tmp_path / "two")] == [
        p["batch_size"] for p in points(measured[0])
    ]
