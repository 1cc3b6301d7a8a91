"""Trains on class folders without splits and on a CSV file: planned, stopped, resumed, evaluated
and exported."""

import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from tests.support.configs import done, parsed
from trainer.commands import plan

FLAGS = [
    "--model=tests.support.models:reshaping",
    "--image_size=24",
    "--initial_batch_size=16",
    "--ghost_batch_size=16",
    "--micro_batch_size=16",
    "--epochs=2",
]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """60 images of two classes, and labels.csv beside them, with all of them in a split."""
    root = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    lines = ["path,label,split"]
    for number in range(60):
        label = ("dark", "light")[number % 2]
        path = root / label / f"{number}.png"
        path.parent.mkdir(exist_ok=True)
        pixels = rng.integers(0, 60, (24, 24, 3)) + 150 * (number % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(path)
        lines.append(f"{label}/{number}.png,{label},{'test' if number < 10 else 'train'}")
    (root / "labels.csv").write_text("\n".join(lines))
    return root


def test_class_folders_from_plan_to_export(photos, tmp_path, capsys):
    run, flags = tmp_path / "run", [f"--dataset=image_folder:{photos}", *FLAGS]
    note = f"{photos} has no folders train and val: a hash of each path puts 56 pictures into train"
    status, out, error = done(capsys, "plan", "--format=json", *flags)
    assert (status, json.loads(out)["examples"]) == (0, 56)
    assert error.startswith(f"crescendo plan: {note}")
    status, out, error = done(capsys, "train", f"--model_dir={run}", *flags, "--stop_at_epoch=1")
    assert status == 0, error
    assert out.count(note) == 1
    assert "train: 56 images, 2 classes (dark " in out
    status, out, error = done(capsys, "train", f"--model_dir={run}", *flags)
    assert status == 0, error
    assert "resumed at update 4" in out
    assert "are in train too" not in out
    assert done(capsys, "export", f"--model_dir={run}")[0] == 0
    assert (run / "export" / "classes.txt").read_text() == "dark\nlight\n"
    status, out, error = done(capsys, "evaluate", f"--export_dir={run}/export", "--format=json")
    assert (status, json.loads(out)["examples"]) == (0, 4), error
    assert note in error


def test_a_csv_file_is_trained_on_and_evaluated(photos, tmp_path, capsys):
    run, table = tmp_path / "run", photos / "labels.csv"
    flags = [f"--dataset=image_csv:{table}", *FLAGS, "--epochs=0.5"]
    status, out, error = done(capsys, "train", f"--model_dir={run}", *flags)
    assert status == 0, error
    assert f"{table}: paths are in column path, labels in label, splits in split" in out
    assert "train: 50 images, 2 classes (dark 25, light 25)" in out
    status, out, error = done(capsys, "evaluate", f"--model_dir={run}", "--format=json")
    assert (status, json.loads(out)["examples"]) == (0, 10), error


def test_plan_counts_without_tensorflow(photos):
    code = (
        "import sys\n"
        "from trainer.main import main\n"
        "status = main(sys.argv)\n"
        "assert 'tensorflow' not in sys.modules\n"
        "sys.exit(status)\n"
    )
    dataset = f"--dataset=image_csv:{photos}/labels.csv"
    command = [sys.executable, "-c", code, "plan", dataset, "--format=json", *FLAGS]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout)["examples"] == 50


def test_a_known_number_of_examples_needs_no_files(capsys):
    assert plan.run(parsed("--dataset=image_csv:/nowhere.csv", "--train_examples=60000")) == 0
    assert capsys.readouterr().err == ""
