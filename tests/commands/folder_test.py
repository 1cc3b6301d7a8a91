"""The program on a folder of photographs: refused for a bad file, trained without it, resumed,
evaluated and exported."""

import json
import os
import pathlib
import subprocess

import pytest

from tests.distributed.rendezvous_test import free_ports
from tests.run_dir.metrics_writer_test import shown
from tests.support import runs
from tests.support.configs import done
from tests.support.photographs import write_photographs
from tests.support.workers import finished, launched
from trainer.data import sources
from trainer.data.bad_examples import BadExamples

# A linear model can tell the classes, and its step is traced in half the time.
LINEAR = ["--model=tests.support.models:reshaping", "--base_learning_rate=0.01"]
FLAGS = [*runs.PICTURES, *LINEAR, "--epochs=3"]
BAD = 7


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """320 images of two classes, dark above and dark below; one of them is cut off. 40 for
    evaluation, and 300 more for another."""
    root = tmp_path_factory.mktemp("photographs")
    write_photographs(root, {"train": 320, "val": 40, "more": 300}, size=(40, 50))
    bad = root / "train" / str(BAD % 2) / f"{BAD}.jpg"
    bad.write_bytes(bad.read_bytes()[:300])
    return root


def test_refused_then_trained_in_one_go_and_in_two_then_evaluated(dataset, tmp_path, capsys):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    augment = "--augment=imagenet,trivialaugment,erasing"
    flags = [f"--dataset=image_folder:{dataset}", augment, *FLAGS, "--eval_every_epochs=1.2"]
    status, _, error = done(capsys, "train", f"--model_dir={whole}", *flags)
    assert status == 2
    assert f"{dataset}/train/1/{BAD}.jpg cannot be used: " in error
    flags.append("--skip_bad_examples")
    runs.train(whole, *flags)
    # In the midst of the second epoch.
    middle = runs.points(whole, "eval")[0]["update"]
    again = runs.train(runs.as_of(whole, parts, middle), *flags)
    assert f"resumed at update {middle}, epoch 1.2" in again.stdout
    assert runs.digest(parts) == runs.digest(whole)
    for split in ("train", "eval"):
        assert runs.points(parts, split) == runs.points(whole, split)
    for path in (whole, parts):
        result = runs.result(path)
        assert result["bad_examples"] == 1
        assert result["top1"] > 0.9
        (line,) = (path / "bad_examples.txt").read_text().splitlines()
        assert line.startswith(f"{dataset}/train/1/{BAD}.jpg\t")

    status, _, error = done(capsys, "export", f"--model_dir={whole}")
    assert (status, error.count("\n")) == (0, 1)
    assert f"takes {runs.newest(whole)}, the newest; " in error
    for of in (f"--model_dir={whole}", f"--export_dir={whole}/export"):
        status, out, _ = done(capsys, "evaluate", of, "--format=json")
        found, logged = json.loads(out), runs.result(whole)
        assert (status, found["examples"], found["top1"]) == (0, 40, logged["top1"])
        assert found["loss"] == pytest.approx(logged["loss"], abs=1e-6)
        status, out, error = done(capsys, "evaluate", of, "--eval_split=train")
        assert (status, error.count("\n")) == (0, 2)
        assert f"crescendo evaluate: {dataset}/train/1/{BAD}.jpg is left out: " in error
        assert "  319 examples of image_folder:" in out
    assert (whole / "bad_examples.txt").read_text().splitlines() == [line]


def test_workers_that_have_other_images_are_refused(dataset, tmp_path):
    """The same number to train with; they would not take turns alike in the evaluation."""
    workers = []
    addresses = [f"localhost:{port}" for port in free_ports(2)]
    for index, split in enumerate(("val", "more")):
        images = tmp_path / str(index) / "images"
        images.mkdir(parents=True)
        (images / "train").symlink_to(dataset / "more")
        (images / "test").symlink_to(dataset / split)
        task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}}
        flags = ["--dataset=image_folder:images", "--eval_split=test", *FLAGS]
        workers.append(
            subprocess.Popen(
                runs.command(tmp_path / "run", "--strategy=multi_worker", *flags),
                cwd=images.parent,
                env=os.environ | {"TF_CONFIG": json.dumps(task), "PYTHONPATH": os.getcwd()},
                stderr=subprocess.PIPE,
                text=True,
            )
        )
    errors = [worker.communicate(timeout=60)[1] for worker in workers]
    assert [worker.returncode for worker in workers] == [2, 2], errors
    for error in errors:
        assert "of image_folder:images test, worker 1 has 300 examples, 2 classes, sh" in error
        assert "and worker 0 40 examples" in error


def test_what_was_left_out_and_mended_since_ends_no_run(uninterrupted, tmp_path):
    run = runs.as_of(uninterrupted[0], tmp_path / "run", 170)
    (run / "bad_examples.txt").write_text("images/1.png\tit was cut\n")
    assert "resumed at update 170" in runs.train(run, *runs.SHORT).stdout
    assert runs.result(run)["bad_examples"] == 1


def test_the_chief_knows_what_another_worker_left_out(dataset, tmp_path):
    """The second worker evaluates the images 125 to 249 of 300."""
    known = BadExamples(skip=True)
    source = sources.load(f"image_folder:{dataset}", "more", None, 24, augment="none", bad=known)
    bad = pathlib.Path(source.describe(200))
    bad.write_bytes(b"")
    process = launched(
        2,
        tmp_path / "run",
        *(f"--dataset=image_folder:{dataset}", *FLAGS, "--initial_batch_size=32"),
        *("--eval_split=more", "--epochs=1", "--skip_bad_examples"),
    )
    output = finished(process)
    assert f"[1] {bad} is left out: " in output
    kept = (tmp_path / "run" / "bad_examples.txt").read_text()
    names = {line.partition("\t")[0] for line in kept.splitlines()}
    assert names == {f"{dataset}/train/1/{BAD}.jpg", str(bad)}
    assert runs.result(tmp_path / "run")["bad_examples"] == 2
    # The confusions of both workers are summed, and only the chief shows them.
    assert [tag for tag, _, _ in shown(tmp_path / "run")[1]] == ["augmented_pictures"]
    assert [tag for tag, _, _ in shown(tmp_path / "run", "eval")[1]] == ["confusion_matrix"]
