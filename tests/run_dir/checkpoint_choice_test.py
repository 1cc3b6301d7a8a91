"""Lines that say which checkpoint a command takes, and which evaluation was the best."""

import pathlib

import pytest
import tensorflow as tf

from trainer.run_dir import checkpoint_choice
from trainer.run_dir.checkpoints import Checkpoints
from trainer.run_dir.exports import ExportInfo

PATH = pathlib.Path("x/export")


@pytest.fixture
def folder(tmp_path):
    """Writes checkpoints of updates 9, 10 and 99; the evaluation at update 10 is the best."""
    checkpoints = Checkpoints(tmp_path, {"weights": [tf.Variable(0.0)]}, keep=9)
    for update in (9, 10, 99):
        best = {"top1": 0.5 + min(update, 10) / 100, "update": min(update, 10)}
        checkpoints.save(update, {"best": None if update == 9 else best})
        checkpoints.wait()
    return tmp_path


@pytest.mark.parametrize(
    ("update", "line"),
    [
        (
            99,
            "takes {0}/000000099, the newest; the best evaluation has top1 0.6000, at update 10, "
            "which --checkpoint=best takes",
        ),
        (10, "takes {0}/000000010; it has the best evaluation, top1 0.6000"),
        (
            9,
            "takes {0}/000000009; the best evaluation has top1 0.6000, at update 10, "
            "which --checkpoint=best takes",
        ),
    ],
)
def test_the_best_is_that_of_the_newest_checkpoint(folder, update, line):
    path = folder / f"{update:09d}"
    best = checkpoint_choice.best(folder, path)
    assert best == {"top1": 0.6, "update": 10}
    assert checkpoint_choice.describe_run(folder, path, update, best) == line.format(folder)


def test_a_run_without_an_evaluation_has_no_best(folder):
    (newest, other) = (folder / "000000009", folder / "000000010")
    for path in (other, folder / "000000099"):
        path.rename(folder / f"other {path.name}")
    assert checkpoint_choice.best(folder, newest) is None
    line = f"takes {newest}, the newest; the run has not evaluated yet"
    assert checkpoint_choice.describe_run(folder, newest, 9, None) == line


def test_a_copy_elsewhere_is_not_asked_about_its_neighbours(folder, tmp_path):
    copy = (folder / "000000010").rename(tmp_path / "good")
    assert checkpoint_choice.best(folder, copy) == {"top1": 0.6, "update": 10}
    line = f"takes {copy}; it has the best evaluation, top1 0.6000"
    assert checkpoint_choice.describe_run(folder, copy, 10, {"top1": 0.6, "update": 10}) == line
    # The copy may be all that is left of the run.
    gone = tmp_path / "gone"
    assert checkpoint_choice.best(gone, copy) == {"top1": 0.6, "update": 10}


def test_lines_name_the_parameters_of_a_run_with_an_average(folder):
    best = {"top1": 0.6, "update": 10, "evaluated_with": "ema"}
    line = checkpoint_choice.describe_run(folder, folder / "000000010", 10, best, "ema")
    assert line == (
        f"takes the average in {folder}/000000010; it has the best evaluation of the average, "
        "top1 0.6000"
    )
    line = checkpoint_choice.describe_run(folder, folder / "000000099", 99, best, "plain")
    assert line == (
        f"takes the plain parameters in {folder}/000000099, the newest; the best evaluation of the "
        "average has top1 0.6000, at update 10, which --checkpoint=best takes"
    )
    about = ExportInfo("x/000000010", 10, (8, 8, 1), 2, {}, best=best, evaluated_with="ema")
    assert checkpoint_choice.describe_export(PATH, about) == (
        f"takes {PATH}, which holds the average of update 10; it had the best evaluation of the "
        "average, top1 0.6000"
    )


@pytest.mark.parametrize(
    ("best", "line"),
    [
        (None, ""),
        ({"top1": 0.75, "update": 7}, "; it had the best evaluation, top1 0.7500"),
        (
            {"top1": 0.75, "update": 5},
            "; the best evaluation has top1 0.7500, at update 5",
        ),
    ],
)
def test_an_export_knows_the_best_of_its_time(best, line):
    about = ExportInfo("checkpoints/000000007", 7, (8, 8, 1), 2, {}, ("a", "b"), best=best)
    found = checkpoint_choice.describe_export(PATH, about)
    assert found == f"takes {PATH}, which holds update 7{line}"
