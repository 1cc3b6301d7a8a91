"""Runs with --ema_decay: what they log, keep, decide and export, and how they resume."""

import json
import shutil

import numpy as np
import pytest
import tensorflow as tf

from tests.commands.evaluate_test import evaluate, same
from tests.run_dir.metrics_writer_test import curve, shown
from tests.support.configs import done, parsed
from tests.support.runs import (
    OFTEN,
    SHORT,
    checkpoints,
    digest,
    kill_after,
    newest,
    points,
    result,
    started,
    train,
)
from trainer.data import png
from trainer.schedule import trajectory

EMA = [*SHORT, "--ema_decay=0.98"]


@pytest.fixture(scope="module")
def averaged(tmp_path_factory):
    model_dir = tmp_path_factory.mktemp("ema") / "run"
    return model_dir, train(model_dir, *EMA)


def logged(model_dir, update, split):
    (point,) = [p for p in points(model_dir, split) if p["update"] == update]
    return {name: point[name] for name in ("top1", "top5", "loss")}


def groups(path):
    """Returns the number of variables in each group of a checkpoint."""
    names = tf.train.load_checkpoint(str(path / "checkpoint")).get_variable_to_shape_map()
    kinds = [name.partition("/")[0] for name in names if "/" in name]
    return {kind: kinds.count(kind) for kind in ("weights", "slots", "averages")}


def progress(path):
    reader = tf.train.load_checkpoint(str(path / "checkpoint"))
    return json.loads(reader.get_tensor("progress/.ATTRIBUTES/VARIABLE_VALUE"))


def test_the_plain_parameters_train_and_are_logged_as_without_an_average(averaged, uninterrupted):
    assert digest(averaged[0]) == digest(uninterrupted[0])
    for split in ("train", "eval"):
        assert points(averaged[0], split) == points(uninterrupted[0], split)
    assert points(uninterrupted[0], "eval_ema") == []
    assert not (uninterrupted[0] / "tensorboard" / "eval_ema").exists()
    assert groups(newest(uninterrupted[0])) == {"weights": 7, "slots": 5, "averages": 0}
    assert groups(newest(averaged[0])) == {"weights": 7, "slots": 5, "averages": 7}
    kept = progress(newest(uninterrupted[0]))
    assert set(kept["best"]) == {"top1", "update"}
    assert set(kept["evaluation"]) == {"position", "loss", "top1", "top5"}


def test_the_average_is_logged_beside_and_counts(averaged):
    model_dir, printed = averaged
    plain, ema = (points(model_dir, split) for split in ("eval", "eval_ema"))
    assert [p["update"] for p in ema] == [p["update"] for p in plain] == [125, 170, 178]
    assert ema[-1]["loss"] != plain[-1]["loss"]
    for name in ("learning_rate", "batch_size", "position", "noise_scale"):
        assert ema[-1][name] == plain[-1][name]
    steps = [(p["update"], round(p["top1"], 4)) for p in ema]
    assert curve(model_dir, "eval_ema", "top1") == steps
    found = result(model_dir)
    assert found["evaluated_with"] == "ema"
    assert (found["top1"], found["loss"]) == (ema[-1]["top1"], ema[-1]["loss"])
    assert found["ema"] == logged(model_dir, 178, "eval_ema")
    assert found["plain"] == logged(model_dir, 178, "eval")
    best = max(ema, key=lambda point: point["top1"])
    wanted = {"top1": best["top1"], "update": best["update"], "evaluated_with": "ema"}
    assert found["best"] == wanted
    horizon = "the average has a horizon of 1,600 examples (0.4 epochs)"
    assert f"{horizon}; results are those of the average" in printed.stdout
    text = f"top1 {found['top1']:.4f} (ema; plain {found['plain']['top1']:.4f}) in 178 updates"
    assert text in printed.stdout
    # The confusion matrix is that of the average.
    assert [tag for tag, *_ in shown(model_dir, "eval_ema")[1]] == ["confusion_matrix"]
    assert shown(model_dir, "eval")[1] == []


def test_killed_and_resumed_it_ends_with_the_same_averages(averaged, tmp_path):
    model_dir = tmp_path / "killed"
    kill_after(started(model_dir, *EMA, OFTEN), model_dir, 100)
    train(model_dir, *EMA)
    assert result(model_dir)["resumes"] == 1
    for name in ("averages_sha256", "parameters_sha256"):
        assert result(model_dir)[name] == result(averaged[0])[name]
    assert points(model_dir, "eval_ema") == points(averaged[0], "eval_ema")


def test_each_command_takes_what_counts_or_what_it_is_told(capsys, averaged, tmp_path):
    model_dir = shutil.copytree(averaged[0], tmp_path / "run")
    run, export = f"--model_dir={model_dir}", f"--export_dir={model_dir}/export"
    ema, plain = (logged(model_dir, 178, split) for split in ("eval_ema", "eval"))
    found = evaluate(capsys, run, "--per_class")
    same(found, ema)
    assert found["evaluated_with"] == "ema"
    assert json.loads((model_dir / "evaluation.json").read_text())["evaluated_with"] == "ema"
    same(evaluate(capsys, run, "--evaluate_with=plain"), plain)
    status, out, error = done(capsys, "export", run)
    assert status == 0, error
    assert f"{model_dir}/export holds the average of the parameters at update 178 of" in out
    found = evaluate(capsys, export)
    same(found, ema)
    assert found["evaluated_with"] == "ema"
    status, _, error = done(capsys, "evaluate", export, "--evaluate_with=plain")
    assert status == 2
    assert "--evaluate_with=plain, but the export" in error
    assert "holds ema." in error
    # Predictions of the run are those of the average's export.
    picture = tmp_path / "picture.png"
    images = np.random.default_rng(0).integers(0, 256, (1, 28, 28, 1), np.uint8)
    picture.write_bytes(png.grid(images, 1))
    exported = tf.saved_model.load(f"{model_dir}/export/saved_model")
    wanted = exported.serve_images(tf.constant([picture.read_bytes()]))["probabilities"][0, :3]
    answers = []
    for flags in ([], ["--evaluate_with=plain"]):
        status, out, error = done(capsys, "predict", run, str(picture), "--format=json", *flags)
        assert status == 0, error
        answers.append(json.loads(out)["probabilities"])
        which = "the plain parameters in" if flags else "the average in"
        assert f"takes {which} {model_dir}/checkpoints/000000178, the newest; " in error
    np.testing.assert_allclose(answers[0], wanted, rtol=1e-5)
    assert np.abs(np.subtract(*answers)).max() > 1e-4
    # An export of the plain parameters may replace that of the average.
    assert done(capsys, "export", run, "--evaluate_with=plain")[0] == 0
    assert json.loads((model_dir / "export" / "export.json").read_text())["update"] == 178
    same(evaluate(capsys, export), plain)


@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_a_run_without_an_average_has_none_to_give(capsys, uninterrupted, command):
    flags = (f"--model_dir={uninterrupted[0]}", "--evaluate_with=ema")
    status, _, error = done(capsys, command, *flags)
    assert status == 2
    assert "--evaluate_with=ema needs an average of the parameters" in error
    assert len(error.splitlines()) <= 2


def test_another_decay_is_refused_and_what_counts_may_change(capsys, averaged, tmp_path):
    model_dir = shutil.copytree(averaged[0], tmp_path / "run")
    run = f"--model_dir={model_dir}"
    status, _, error = done(capsys, "train", *SHORT, run)
    assert status == 2
    assert "--ema_decay: 0.98 → unset" in error
    # A kill between the last checkpoint and the result: the evaluation is not repeated.
    (model_dir / "result.json").unlink()
    status, out, error = done(capsys, "train", *EMA, run, "--evaluate_with=plain")
    assert status == 0, error
    assert "--evaluate_with was ema so far: the best evaluation is chosen" in out
    found = result(model_dir)
    assert (found["evaluated_with"], found["top1"]) == ("plain", found["plain"]["top1"])
    assert len(checkpoints(model_dir)) == len(checkpoints(averaged[0]))


def test_a_plateau_is_one_of_the_average(capsys, tmp_path):
    model_dir = tmp_path / "run"
    flags = [
        *(*EMA, f"--model_dir={model_dir}", "--epochs=2"),
        *("--anneal=plateau", "--anneal_epochs=", "--eval_every_epochs=0.25"),
        *("--min_improvement=0.02", "--patience=1", "--max_anneals=2"),
    ]
    assert done(capsys, "train", *flags)[0] == 0
    config = parsed(*flags)

    def decided(split):
        controller = trajectory.from_config(config, 4_000, 1).control
        return [controller.evaluated(p["top1"]) for p in points(model_dir, split)]

    found = [p.get("decision") for p in points(model_dir, "eval_ema")]
    assert found == decided("eval_ema") != decided("eval")
    assert any(found)
    assert not any("decision" in p for p in points(model_dir, "eval"))
    # What a controller decides by is learned.
    status, _, error = done(capsys, "train", *flags, "--evaluate_with=plain")
    assert status == 2
    assert "--evaluate_with: ema → plain" in error
