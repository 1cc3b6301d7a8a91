"""Evaluations of a run, its checkpoints and its export equal what the run logged."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf

from tests.support.configs import done
from tests.support.runs import (
    CONSTANT,
    OFTEN,
    SHORT,
    checkpoints,
    newest,
    points,
    result,
    started,
    wait_for,
)
from trainer.commands import evaluate as command
from trainer.data import sources
from trainer.errors import UserError
from trainer.run_dir import class_evaluation


def evaluate(capsys, *flags):
    status, out, err = done(capsys, "evaluate", "--format=json", *flags)
    assert status == 0, err
    return json.loads(out)


def logged(model_dir, update):
    (point,) = [p for p in points(model_dir, "eval") if p["update"] == update]
    return {name: point[name] for name in ("top1", "top5", "loss")}


def same(found, expected, examples=1000):
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-6)
    assert found["examples"] == examples


def evaluate_alone(*flags):
    command = [sys.executable, "-m", "trainer", "evaluate", "--format=json", *flags]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return json.loads(out)


@pytest.mark.parametrize(
    ("which", "update"), [("newest", 178), ("best", 178), ("125", 125), ("{0}/000000170", 170)]
)
def test_a_run(capsys, uninterrupted, which, update):
    model_dir, _ = uninterrupted
    assert result(model_dir)["best"]["update"] == 178
    flag = f"--checkpoint={which.format(model_dir / 'checkpoints')}"
    found = evaluate(capsys, f"--model_dir={model_dir}", flag)
    same(found, logged(model_dir, update))
    assert found["checkpoint"] == str(model_dir / "checkpoints" / f"{update:09d}")


def test_a_checkpoint_without_its_run_named(capsys, uninterrupted):
    model_dir, _ = uninterrupted
    found = evaluate(capsys, f"--checkpoint={model_dir}/checkpoints/000000125")
    same(found, logged(model_dir, 125))


@pytest.mark.parametrize(
    ("images", "shape", "resized"),
    [
        ((20, 20, 1), (40, 40, 1), True),
        ((20, 20, 1), (40, 40, 3), False),
        ((40, 40, 1), (40, 40, 3), False),
        ((40, 40, 3), (40, 20, 3), False),
    ],
)
def test_another_size_is_the_remedy_only_if_it_makes_the_images_fit(images, shape, resized):
    with pytest.raises(UserError, match="name the model's training data") as error:
        command._check_fits(images, 3, shape, 3, "the images")
    assert ("or give --eval_image_size=40" in str(error.value)) == resized


def test_the_command_line_wins(capsys, uninterrupted):
    model_dir, _ = uninterrupted
    flags = (f"--model_dir={model_dir}", "--eval_split=train[:100]")
    status, out, _ = done(capsys, "evaluate", *flags)
    assert status == 0
    assert out.startswith("top1 0.")
    assert "  100 examples of fashion_mnist train[:100]  " in out
    assert out.endswith("/checkpoints/000000178\n")


def everything(folder):
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else None)
        for path in folder.rglob("*")
    }


def test_nothing_is_written_and_a_run_from_before_training_data_json_is_evaluated(
    capsys, uninterrupted, tmp_path
):
    model_dir = shutil.copytree(uninterrupted[0], tmp_path / "run")
    (model_dir / "training_data.json").unlink()
    before = everything(model_dir)
    same(evaluate(capsys, f"--model_dir={model_dir}"), logged(model_dir, 178))
    assert everything(model_dir) == before


@pytest.mark.parametrize("command", ["evaluate", "export", "train"])
def test_one_digit_of_what_a_run_learned_with(capsys, uninterrupted, tmp_path, command):
    model_dir = shutil.copytree(uninterrupted[0], tmp_path / "run")
    kept = json.loads((model_dir / "training_data.json").read_text())
    (mean,) = kept["mean"]
    changed = json.dumps(kept | {"mean": [mean - 60]})
    (model_dir / "training_data.json").write_text(changed)
    (model_dir / "result.json").unlink()  # So that train goes on.
    flags = [f"--model_dir={model_dir}", *(SHORT if command == "train" else ())]
    status, _, err = done(capsys, command, *flags)
    assert status == 2
    assert f"the data that the run began with: mean [{mean - 60}] instead of [{mean}]" in err
    assert (model_dir / "training_data.json").read_text() == changed


def test_the_training_set_is_not_read(capsys, uninterrupted, tmp_path):
    """The statistics of its pixels are the run's own."""
    flags = (f"--model_dir={uninterrupted[0]}", "--train_split=none_of_that_name")
    same(evaluate(capsys, *flags), logged(uninterrupted[0], 178))


def test_a_damaged_newest(capsys, uninterrupted, tmp_path):
    model_dir = shutil.copytree(uninterrupted[0], tmp_path / "run")
    (newest(model_dir) / "checkpoint.index").unlink()
    status, out, err = done(capsys, "evaluate", f"--model_dir={model_dir}", "--format=json")
    assert status == 0
    assert err.startswith(f"crescendo evaluate: checkpoint {newest(model_dir)} is damaged and left")
    same(json.loads(out), logged(model_dir, 170))
    status, _, err = done(capsys, "evaluate", f"--model_dir={model_dir}", "--checkpoint=178")
    assert status == 2
    assert "000000178 is damaged" in err
    assert "updates 125, 170 exist" in err


def test_a_run_that_trains_meanwhile(capsys, tmp_path):
    """Its checkpoints come and go ten times a second."""
    model_dir = tmp_path / "run"
    flags = (*SHORT, *CONSTANT, OFTEN, "--epochs=100", "--keep_checkpoints=1")
    process = started(model_dir, *flags)
    try:
        wait_for(lambda: len(checkpoints(model_dir)) > 1, process)
        flags = (f"--model_dir={model_dir}", "--per_class")
        seen = {evaluate(capsys, *flags)["checkpoint"] for _ in range(3)}
        assert process.poll() is None
    finally:
        process.kill()
        process.communicate()
    assert len(seen) > 1
    assert not os.path.exists(min(seen))
    assert class_evaluation.read(model_dir)["checkpoint"] in seen


def slow_numbers(serve):
    """Numbers of each class, and the most wrong example, from a SavedModel's logits."""
    source = sources.load("fashion_mnist", "test[:1000]", None, None)
    logits = serve(source.images).numpy().astype(np.float64)
    predicted, labels = logits.argmax(axis=1), source.labels
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    rows = []
    for c in range(10):
        support, taken = (labels == c).sum(), (predicted == c).sum()
        both = ((labels == c) & (predicted == c)).sum()
        precision = both / taken if taken else None
        rows.append((support, taken, both, precision, both / support, 2 * both / (support + taken)))
    own = np.where(predicted == labels, 1.0, shares[np.arange(1000), labels])
    return rows, int(own.argmin()), own.min()


def test_each_class_equals_a_slow_reference_on_a_run_on_two_replicas_and_in_an_export(
    capsys, uninterrupted, tmp_path
):
    model_dir = shutil.copytree(uninterrupted[0], tmp_path / "run")
    assert done(capsys, "export", f"--model_dir={model_dir}")[0] == 0
    exported = tf.saved_model.load(str(model_dir / "export" / "saved_model"))
    rows, worst, probability = slow_numbers(exported.serve)
    run, export = f"--model_dir={model_dir}", f"--export_dir={model_dir}/export"
    printed = evaluate(capsys, run, "--per_class")
    same(printed, logged(model_dir, 178))
    same(evaluate(capsys, export, "--per_class"), logged(model_dir, 178))
    on_two = shutil.copytree(model_dir, tmp_path / "two")
    flags = (f"--model_dir={on_two}", "--per_class", "--virtual_devices=2")
    same(evaluate_alone(*flags), logged(model_dir, 178))
    for folder in (model_dir, model_dir / "export", on_two):
        found = class_evaluation.read(folder)
        names = ("support", "predicted", "correct", "precision", "recall", "f1")
        for each, expected in zip(found["classes"], rows, strict=True):
            assert tuple(each[name] for name in names) == pytest.approx(expected)
        assert sum(count for _, _, count in found["confusion"]) == 1000
        assert found["balanced_accuracy"] == pytest.approx(np.mean([row[4] for row in rows]))
        first = found["most_wrong"][0]
        assert (first["index"], first["path"]) == (worst, None)
        assert first["class_probability"] == pytest.approx(probability, rel=1e-3)
        assert (found["update"], found["split"]) == (178, "test[:1000]")
    assert printed["classes"] == class_evaluation.read(model_dir)["classes"]
    assert "most_wrong" not in printed


def test_classes_without_examples_are_named_and_the_table_is_printed(
    capsys, uninterrupted, tmp_path
):
    model_dir = shutil.copytree(uninterrupted[0], tmp_path / "run")
    flags = (f"--model_dir={model_dir}", "--per_class", "--eval_split=test[:3]")
    status, out, error = done(capsys, "evaluate", *flags)
    assert status == 0, error
    first, head, *rows, missing, last = out.splitlines()
    assert "top5" not in first  # Ten classes are few.
    assert head.split()[:3] == ["class", "support", "precision"]
    classes = class_evaluation.read(model_dir)["classes"]
    without = [row["name"] for row in classes if not row["support"]]
    assert missing == f"classes without examples: {', '.join(without)}"
    assert len(rows) == 10 - len(without) <= 3
    assert last.startswith("balanced accuracy ")
    assert last.endswith(" in 15 bins")
    assert f"{model_dir}/evaluation.json" in error


def test_numbers_that_cannot_be_written_are_printed_and_end_in_status_1(
    capsys, uninterrupted, tmp_path
):
    model_dir = shutil.copytree(uninterrupted[0], tmp_path / "run")
    (model_dir / "evaluation.json").mkdir()
    status, out, error = done(capsys, "evaluate", f"--model_dir={model_dir}", "--per_class")
    assert status == 1
    assert "balanced accuracy" in out
    assert f"{model_dir}/evaluation.json cannot be written" in error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--model_dir={0}", "--checkpoint=bset"], "updates 125, 170, 178 exist"),
        (["--model_dir={0}", "--checkpoint=126"], "--checkpoint=126 does not exist"),
        (["--model_dir={0}", "--checkpoint={0}/checkpoints/000000126"], "000000126 does not exist"),
        (["--model_dir={0}/nowhere"], "is not a run directory: it has no flags.txt"),
        (["--export_dir={0}"], "is not an export"),
        (["--model_dir={0}", "--dataset=cifar10_1"], "cifar10_1"),
        (
            ["--model_dir={0}", "--model=tests.support.models:subclassed"],
            "was written for another model",
        ),
        (["--model_dir={0}", "--model=plain_9"], "was written for another model"),
        (["--model_dir={0}", "--num_classes=11"], "was written for another model"),
        ([], "--model_dir is missing"),
    ],
    ids=str,
)
def test_what_cannot_be_evaluated(capsys, uninterrupted, flags, message):
    flags = [flag.format(uninterrupted[0]) for flag in flags]
    status, out, err = done(capsys, "evaluate", *flags)
    assert (status, out) == (2, "")
    assert message in err
    assert len(err.splitlines()) <= 2


def test_a_run_without_checkpoints(capsys, uninterrupted, tmp_path):
    model_dir = shutil.copytree(uninterrupted[0], tmp_path / "run")
    shutil.rmtree(model_dir / "checkpoints")
    status, _, err = done(capsys, "evaluate", f"--model_dir={model_dir}")
    assert status == 2
    assert "holds no checkpoint: wait for" in err
