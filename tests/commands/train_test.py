"""Whole runs of the program, in processes of their own, on Fashion-MNIST."""

import shutil

import pytest

from tests.run_dir.metrics_writer_test import shown
from tests.support.runs import SHORT, digest, newest, points, result, train


def test_a_growing_run(uninterrupted):
    model_dir, done = uninterrupted
    found = result(model_dir)
    assert found["updates"] == 150 + 23 + 5
    assert found["position"] == 150 * 32 + 23 * 160 + 5 * 800
    assert found["traces"] == 1  # three batch sizes, one micro-batch shape
    assert found["resumes"] == 0
    assert found["examples_per_second"] > 0
    assert len(found["parameters_sha256"]) == 64
    # At every tenth update, before a growth, and at the evaluations.
    logged = [p["update"] for p in points(model_dir)]
    grown = [150, 173]
    evaluated = [p["update"] for p in points(model_dir, "eval")]
    assert logged == sorted({*range(10, 178, 10), *grown, *evaluated})
    assert evaluated == [125, 170, 178]
    assert [p["epoch"] >= i + 1 for i, p in enumerate(points(model_dir, "eval"))] == [True] * 3
    assert points(model_dir, "eval")[-1]["update"] == found["updates"]
    loading, read, training, _, evaluation, header, *_, last = done.stdout.splitlines()
    assert loading == "loading TensorFlow"
    assert read == "reading fashion_mnist train[:4000]"
    best = max(points(model_dir, "eval"), key=lambda point: point["top1"])
    assert f"update {best['update']}" in last or best["update"] == found["updates"]
    assert last.endswith(
        f"; python -m trainer export --model_dir={model_dir} --checkpoint=best writes its model"
    )
    assert training.startswith("train[:4000]: 4,000 images, 10 classes (")
    assert evaluation.startswith("test[:1000]: 1,000 images, 10 classes (")
    assert header.split() == [
        *("epoch", "update", "updates", "batch", "learning", "rate"),
        *("momentum", "noise", "scale", "layout"),
    ]
    assert "noise scale is not measured at batch 32, which is one micro-batch" in done.stdout
    measured = {p["batch_size"] for p in points(model_dir) if "gradient_noise_scale" in p}
    assert measured == {160, 800}


def test_tensorboard_shows_flags_augmented_pictures_and_confusions(uninterrupted):
    model_dir, _ = uninterrupted
    texts, pictures = shown(model_dir)
    flags = (model_dir / "flags.txt").read_text()
    assert texts == [("flags", 0, "".join(f"    {line}\n" for line in flags.splitlines()))]
    assert pictures == [("augmented_pictures", 0, (model_dir / "augmented.png").read_bytes())]
    texts, ((tag, update, png),) = shown(model_dir, "eval")
    assert (texts, tag, update) == ([], "confusion_matrix", 178)
    assert png.startswith(b"\x89PNG")


def test_again_says_finished(uninterrupted):
    model_dir, _ = uninterrupted
    done = train(model_dir, *SHORT)
    assert "is finished: top1" in done.stdout


def test_another_run_in_its_place_is_refused(uninterrupted):
    model_dir, _ = uninterrupted
    done = train(model_dir, *SHORT, "--seed=1", status=2)
    assert "--seed: 0 → 1" in done.stderr


def test_a_last_update_that_diverges_is_no_result(tmp_path):
    flags = [*SHORT, "--train_split=train[:800]", "--epochs=0.001", "--base_learning_rate=1e30"]
    train(tmp_path / "run", *flags, status=3)
    assert not (tmp_path / "run" / "result.json").exists()
    assert newest(tmp_path / "run") is None


@pytest.fixture(scope="module")
def stopped(uninterrupted, tmp_path_factory):
    """A run that the flags of another ask for, after a wrong start, and that stops early."""
    model_dir = tmp_path_factory.mktemp("stopped") / "run"
    train(model_dir, *SHORT, "--initial_batch_size=25", status=2)
    flags = (f"--flagfile={uninterrupted[0]}/flags.txt", f"--model_dir={model_dir}")
    train(model_dir, *flags, "--stop_at_epoch=1.2")
    assert not (model_dir / "result.json").exists()
    return model_dir


def test_it_replays_by_its_own_flags_after_a_wrong_start_and_a_stop(
    uninterrupted, stopped, tmp_path
):
    model_dir = shutil.copytree(stopped, tmp_path / "run")
    again = train(model_dir, *SHORT)
    assert "resumed at update 150, epoch 1.20" in again.stdout
    assert digest(model_dir) == digest(uninterrupted[0])
    assert points(model_dir, "eval") == points(uninterrupted[0], "eval")
    assert shown(model_dir, "eval") == shown(uninterrupted[0], "eval")
    assert shown(model_dir)[1] == shown(uninterrupted[0])[1]
    assert len(shown(model_dir)[0]) == 1


def test_a_run_that_resumes_after_its_last_evaluation_says_what_it_lacks(uninterrupted, tmp_path):
    model_dir = shutil.copytree(uninterrupted[0], tmp_path / "run")
    (model_dir / "result.json").unlink()
    (model_dir / "evaluation.json").write_text("{}")  # A run does not read it.
    done = train(model_dir, *SHORT)
    assert digest(model_dir) == digest(uninterrupted[0])
    assert "TensorBoard lacks the confusion matrix, because the run resumed" in done.stdout
    assert shown(model_dir, "eval") == ([], [])


def test_an_evaluation_where_the_run_goes_on_is_logged_once(stopped, tmp_path):
    model_dir = shutil.copytree(stopped, tmp_path / "run")
    for _ in range(2):
        train(model_dir, *SHORT, "--stop_at_epoch=1.2", "--eval_every_epochs=0.6")
    assert [point["update"] for point in points(model_dir, "eval")] == [125, 150]


def test_the_layout_changes_nothing(tmp_path):
    flags = [*SHORT, "--epochs=1", "--initial_batch_size=128", "--max_batch_size=384"]
    flags += ["--train_split=train[:2000]", "--eval_split=test[:200]"]
    runs = {}
    for devices, micro_batch in ((1, 16), (2, 32), (4, 8)):
        model_dir = tmp_path / f"{devices}-{micro_batch}"
        layout = (f"--virtual_devices={devices}", f"--micro_batch_size={micro_batch}")
        train(model_dir, *flags, *layout, "--log_every_updates=1")
        runs[devices] = points(model_dir)
    assert [p["batch_size"] for p in runs[1]] == [128] * 7 + [384] * 3
    for devices in (2, 4):
        for ours, theirs in zip(runs[devices], runs[1], strict=True):
            assert ours["position"] == theirs["position"]
            assert ours["batch_size"] == theirs["batch_size"]
            assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-4)


def test_a_diverging_run_stops(tmp_path):
    wild = ("--train_split=train[:800]", "--base_learning_rate=1e30", "--epochs=1")
    done = train(tmp_path / "wild", *SHORT, *wild, status=3)
    assert "update " in done.stderr
    assert "learning rate 1e+30 and batch size 32" in done.stderr


def test_accuracy_of_a_short_real_run(tmp_path):
    """The recipe of the main job at half its first batch, two epochs of 3,840 images."""
    train(
        tmp_path / "short",
        "--flagfile=flags/fashion_mnist_grow.flags",
        *("--epochs=2", "--train_split=train[:3840]", "--eval_split=test[:1000]"),
        *("--eval_every_epochs=2", "--initial_batch_size=64", "--max_batch_size=384"),
        "--micro_batch_size=32",
    )
    found = result(tmp_path / "short")
    # Seeds 0, 1 and 2 reach 62%, 59% and 56%; seed 0 with a fifth of the rate 52%.
    assert 0.56 < found["top1"] < 0.70
    assert found["traces"] == 1
