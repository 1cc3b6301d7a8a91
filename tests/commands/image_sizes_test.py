"""Runs with --image_sizes: resumed, killed, on other layouts, evaluated and exported."""

import itertools
import json

import numpy as np
import pytest
import tensorflow as tf

from tests.commands.evaluate_test import evaluate, same
from tests.support.configs import done
from tests.support.runs import OFTEN, SHORT, digest, kill_after, points, result, started, train
from trainer.data import png
from trainer.training import micro_batch_search

SIZES = [*SHORT, "--image_sizes=14@0%,20@35%,28@80%"]


@pytest.fixture(scope="module")
def resized(tmp_path_factory):
    model_dir = tmp_path_factory.mktemp("sizes") / "run"
    return model_dir, train(model_dir, *SIZES)


def test_it_trains_at_each_size_and_keeps_the_schedule(resized, uninterrupted):
    model_dir, printed = resized
    found = points(model_dir)
    assert [*dict.fromkeys(p["image_size"] for p in found)] == [14, 20, 28]
    # 14 pixels up to 35% of 12,000 examples, and 28 from 80% on.
    for point in found:
        start = point["position"] - point["batch_size"]
        wanted = 14 if start < 4_200 else 20 if start < 9_600 else 28
        assert point["image_size"] == wanted
    for name in ("update", "position", "batch_size", "learning_rate"):
        ours, theirs = ({p[name] for p in points(run)} for run in (model_dir, uninterrupted[0]))
        assert theirs <= ours
    # Each size's last update is logged, so that no point is a mean over two sizes.
    last = [a for a, b in itertools.pairwise(found) if a["image_size"] != b["image_size"]]
    for point, end in zip(last, (4_200, 9_600), strict=True):
        assert point["position"] - point["batch_size"] < end <= point["position"]
    assert all("image_size" not in p for p in points(uninterrupted[0]))
    assert result(model_dir)["traces"] == 3
    assert result(model_dir)["image_size"] == 28
    assert "image_size" not in result(uninterrupted[0])
    assert "evaluations, exports and predictions have images of 28 pixels" in printed.stdout


def test_killed_at_two_sizes_and_resumed_it_learns_the_same(resized, tmp_path):
    model_dir = tmp_path / "killed"
    for update in (30, 140):  # Of 178 updates, the first 132 have 14 pixels, three have 28.
        kill_after(started(model_dir, *SIZES, OFTEN), model_dir, update)
    train(model_dir, *SIZES)
    assert result(model_dir)["resumes"] == 2
    assert digest(model_dir) == digest(resized[0])
    assert points(model_dir, "eval") == points(resized[0], "eval")


def test_replicas_and_micro_batches_change_nothing(resized, tmp_path):
    flags = ["--virtual_devices=2", "--micro_batch_size=8"]
    train(tmp_path / "run", *SIZES, *flags)
    ours, theirs = (
        {p["update"]: p["loss"] for p in points(run)} for run in (tmp_path / "run", resized[0])
    )
    common = sorted(ours.keys() & theirs.keys())
    assert len(common) >= 15
    np.testing.assert_allclose(
        [ours[update] for update in common], [theirs[update] for update in common], rtol=1e-3
    )


def test_evaluation_and_export_have_the_size_of_evaluations(capsys, tmp_path):
    model_dir = tmp_path / "run"
    flags = ["--epochs=0.2", "--image_size=20", "--eval_image_size=24"]
    status, out, error = done(
        capsys, "train", *SHORT, "--anneal=constant", "--anneal_epochs=", *flags,
        f"--model_dir={model_dir}",
    )  # fmt: skip
    assert status == 0, error
    assert "training images have 20 pixels; evaluations, exports and predictions 24" in out
    last = points(model_dir, "eval")[-1]
    wanted = {name: last[name] for name in ("top1", "top5", "loss")}
    same(evaluate(capsys, f"--model_dir={model_dir}"), wanted)
    # A size that is given for one call counts, although the run has --eval_image_size.
    other = evaluate(capsys, f"--model_dir={model_dir}", "--image_size=20")
    assert other["loss"] != pytest.approx(wanted["loss"])
    assert done(capsys, "export", f"--model_dir={model_dir}")[0] == 0
    about = json.loads((model_dir / "export" / "export.json").read_text())
    assert about["image_shape"] == [24, 24, 1]
    exported = tf.saved_model.load(f"{model_dir}/export/saved_model")
    signature = exported.signatures["serving_default"].structured_input_signature[1]
    assert {tuple(spec.shape) for spec in signature.values()} == {(None, 24, 24, 1)}


def test_each_size_has_a_measured_micro_batch(capsys, tmp_path, monkeypatch):
    """Checks the choice among two that divide the batch of 32, by short measurements."""
    monkeypatch.setattr(micro_batch_search, "_SECONDS", 0.1)
    flags = [
        *("--image_sizes=14@0,28@0.05", "--epochs=0.1", "--anneal=constant", "--anneal_epochs="),
        *("--nodeterministic", "--micro_batch_size=0", "--ghost_batch_size=16"),
        *("--max_batch_size=32", f"--model_dir={tmp_path}/run"),
    ]
    status, _, error = done(capsys, "train", *SHORT, *flags)
    assert status == 0, error
    found = {
        path.name: json.loads(path.read_text())["micro_batch_size"]
        for path in (tmp_path / "run").glob("micro_batch*.json")
    }
    assert set(found) == {"micro_batch_14.json", "micro_batch_28.json"}
    assert set(found.values()) <= {16, 32}
    assert result(tmp_path / "run")["micro_batch_size"] == found["micro_batch_28.json"]


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--image_sizes=32@0,64@1", "--model=vgg_16"], "--model=vgg_16, built for evaluations"),
        (["--image_sizes=14@0,28@9"], "--image_sizes has 28@9"),
        (["--image_sizes=14"], "--image_sizes=14: has '14'"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_training(capsys, tmp_path, flags, message):
    status, _, error = done(capsys, "train", *SHORT, *flags, f"--model_dir={tmp_path}/run")
    assert status == 2
    assert message in error
    assert len(error.splitlines()) <= 2
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_range_test_changes_the_learning_rate_alone(capsys, tmp_path):
    flags = [*SIZES, f"--model_dir={tmp_path}/run"]
    status, _, error = done(capsys, "range_test", *flags)
    assert status == 2
    assert "--image_sizes=14@0%,20@35%,28@80% changes the images" in error


def test_layers_are_planned_at_the_size_of_evaluations(capsys, tmp_path):
    for name in ("train/a/1.png", "train/b/1.png"):
        path = tmp_path / name
        path.parent.mkdir(parents=True)
        path.write_bytes(png.grid(np.zeros((1, 9, 9, 3), np.uint8), 1))
    flags = [
        *(f"--dataset=image_folder:{tmp_path}", "--train_split=train", "--layer_decay=0.8"),
        *("--image_sizes=16@0,32@50%", "--train_examples=2000", "--initial_batch_size=32"),
        *("--model=plain_9", "--format=json"),
    ]
    status, out, error = done(capsys, "plan", *flags)
    assert status == 0, error
    planned = json.loads(out)
    assert {phase["image_size"] for phase in planned["phases"]} == {16, 32}
    assert any(note.startswith("evaluations, exports and predictions") for note in planned["notes"])
