"""The program's range test, in processes of its own."""

import csv
import itertools
import json
import re
import subprocess
import sys

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.support.configs import parsed
from trainer.commands import range_test as command
from trainer.errors import UserError
from trainer.schedule import trajectory

FLAGS = [
    *("--flagfile=flags/fashion_mnist_grow.flags", "--epochs=1", "--ghost_batch_size=64"),
    *(
        "--model=tests.support.models:tiny",
        "--train_split=train[:12800]",
        "--eval_split=test[:500]",
    ),
]


def range_test(model_dir, *arguments, status=0):
    command = [sys.executable, "-m", "trainer", "range_test", *FLAGS, f"--model_dir={model_dir}"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True)
    assert done.returncode == status, done.stderr
    return done


def test_a_range_test_and_again(tmp_path):
    model_dir, also = tmp_path / "range", tmp_path / "also.flags"
    # A flagfile may hold flags of plan and train, which change nothing here.
    also.write_text("--workers=2:4\n--plan_examples_per_second=1000\n")
    done = range_test(model_dir, f"--flagfile={also}")
    *_, why, _, suggestion, _, cycles = done.stdout.splitlines()
    # They are flags, of a schedule with the batch and the momentum that were tested.
    asked = parsed(*suggestion.split(), *cycles.split())
    start = trajectory.from_config(asked, 12_800, 1).start
    assert (start.batch_size, start.momentum) == (128, 0.9)
    assert 1e-4 < asked.min_learning_rate < start.learning_rate < 10
    assert "training top1 has made a tenth of its gain" in why
    with open(model_dir / "range_test.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 100
    rates = [float(row["learning_rate"]) for row in rows]
    assert rates[0] == pytest.approx(1e-4)
    ratios = [b / a for a, b in itertools.pairwise(rates)]
    assert ratios == pytest.approx([1e5 ** (1 / 100)] * 99)
    assert (model_dir / "range_test.png").stat().st_size > 10_000
    events = EventAccumulator(str(model_dir / "tensorboard" / "range_test"))
    events.Reload()
    assert events.Images("range_test")
    again = range_test(model_dir)
    assert "is finished" in again.stdout
    assert suggestion in again.stdout


def test_a_test_that_diverges_is_one(tmp_path):
    flags = ["--range_to=1e25", "--range_from=0.01", "--deterministic"]
    done = range_test(tmp_path / "wild", *flags)
    assert "crescendo train: " not in done.stderr
    assert re.search("with learning rate .*: the test ends here\n", done.stdout)
    assert "--warmup_epochs" not in done.stdout + done.stderr
    # Its 33 updates learn nothing, so chance decides whether a rate is suggested.
    assert "wild/range_test.png and .csv" in done.stdout


def suggestion(folder, capsys, *top1, flags=(), diverged=False):
    """Output of the command for a run whose points have `top1`, at rates 0.001, 0.01, ..."""
    folder.mkdir()
    setting = {"split": "train", "loss": 2.0, "batch_size": 128, "momentum": 0.9}
    for i, each in enumerate(top1):
        point = {"update": i + 1, "time": 0, "learning_rate": 10.0 ** (i - 3)}
        point["position"] = 128 * (i + 1)
        with open(folder / "metrics.jsonl", "a") as file:
            file.write(json.dumps(setting | point | {"top1": each}) + "\n")
    if diverged:
        (folder / "diverged.txt").write_text("the loss is nan")
    command._report(parsed("--anneal=range_test", *flags, command="range_test"), folder)
    return capsys.readouterr().out


def test_only_flags_that_train_accepts_are_suggested(tmp_path, capsys):
    rises = suggestion(tmp_path / "rises", capsys, 0.1, 0.1, 0.5, 0.9, 0.9, 0.1)
    assert "--anneal=cyclical" in rises
    at_once = suggestion(tmp_path / "once", capsys, 0.1, 0.9, 0.1)
    assert "--base_learning_rate=0.01 " in at_once
    assert "--anneal=cyclical" not in at_once
    none = suggestion(tmp_path / "none", capsys, 0.1, 0.1, 0.1)
    assert "--base_learning_rate" not in none
    wild = suggestion(tmp_path / "wild", capsys, 0.1, 0.5, 0.9, diverged=True)
    assert "raise --range_to" not in wild


def test_one_point_suggests_nothing(tmp_path, capsys):
    with pytest.raises(UserError, match="lower --range_from"):
        suggestion(tmp_path / "wild", capsys, 0.1, diverged=True)
    with pytest.raises(UserError, match="a lower --log_every_updates"):
        suggestion(tmp_path / "short", capsys, 0.1)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--range_from=1", "--range_to=1"], "--range_from=1 is not below --range_to=1"),
        (
            ["--epochs=0.05"],
            "5 updates are too few for a range test: raise --epochs to 0.2 or more",
        ),
        (
            # Of ten, the last is of 80 examples too many.
            ["--epochs=0.1", "--train_split=train[:12000]"],
            "10 updates are too few for a range test: raise --epochs to 0.22 or more",
        ),
    ],
)
def test_what_cannot_tell_is_refused(tmp_path, flags, message):
    assert message in range_test(tmp_path / "run", *flags, status=2).stderr
