"""Frozen layers join the training at --unfreeze_epochs, in one go and across kills."""

import functools
import itertools

import numpy as np
import pytest
import tensorflow as tf

from tests.support.configs import done, parsed
from tests.support.runs import (
    CONSTANT,
    OFTEN,
    SHORT,
    as_of,
    checkpoints,
    digest,
    kill_after,
    points,
    result,
    started,
    train,
)
from tests.support.steps import step_on, tiny
from trainer.distributed.process_group import ProcessGroup
from trainer.nn.freezing import freeze
from trainer.training import run_setup
from trainer.training.phases import Phases

# 125 updates in the epoch; the layers join after 63, which reach position 2,000. The first of two
# evaluations, which have checkpoints, is at update 50.
FLAGS = [
    *(*SHORT, *CONSTANT, "--epochs=1", "--eval_every_epochs=0.4"),
    *("--freeze=(?!dense)", "--unfreeze_epochs=0.5"),
]
BEFORE, JOIN = 50, 63


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phases") / "whole"
    return folder, train(folder, *FLAGS, OFTEN, "--keep_checkpoints=200")


def variables(path, group):
    """Returns the values of a group of variables in a checkpoint."""
    reader = tf.train.load_checkpoint(str(path / "checkpoint"))
    count = sum(name.startswith(f"{group}/") for name in reader.get_variable_to_shape_map())
    return [reader.get_tensor(f"{group}/{i}/.ATTRIBUTES/VARIABLE_VALUE") for i in range(count)]


def test_all_layers_train_from_the_epoch_on(whole):
    folder, done_ = whole
    assert f"all layers train from update {JOIN + 1} on" in done_.stdout
    assert result(folder)["traces"] == 2
    first, *_, last = checkpoints(folder)
    before = [p for p in checkpoints(folder) if int(p.stem) < JOIN][-1]
    assert [len(variables(p, "slots")) for p in (before, last)] == [2, 5]
    kept = [variables(path, "weights") for path in (first, before, last)]
    changed = [
        [bool(np.any(a != b)) for a, b in zip(one, other, strict=True)]
        for one, other in itertools.pairwise(kept)
    ]
    # Kernel, gamma, beta, two statistics, kernel and bias.
    assert changed == [[False] * 5 + [True] * 2, [True] * 7]


def check_that_it_ends_the_same(whole, folder):
    resumed = train(folder, *FLAGS, OFTEN)
    assert "resumed at update" in resumed.stdout
    assert "has another configuration" not in resumed.stdout  # Freezing does not edit the model.
    assert digest(folder) == digest(whole[0])
    assert points(folder, "eval") == points(whole[0], "eval")


def test_as_a_kill_left_it_before_they_join_it_ends_the_same(whole, tmp_path):
    check_that_it_ends_the_same(whole, as_of(whole[0], tmp_path / "killed", BEFORE))


def test_killed_after_they_join_it_ends_the_same(whole, tmp_path):
    kill_after(started(tmp_path, *FLAGS, OFTEN), tmp_path, JOIN + 10)
    check_that_it_ends_the_same(whole, tmp_path)


def test_an_evaluation_knows_the_model_that_was_frozen(capsys, whole):
    status, out, error = done(capsys, "evaluate", f"--model_dir={whole[0]}")
    assert status == 0, error
    assert "has another configuration" not in out + error


@pytest.mark.parametrize("command", ["plan", "train"])
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "--unfreeze_epochs=0.5 has nothing to unfreeze"),
        (["--freeze=x", "--epochs=0.5"], "--unfreeze_epochs=0.5 is not inside the run of 0.5 ep"),
    ],
)
def test_an_epoch_that_changes_nothing_is_refused(capsys, tmp_path, command, flags, message):
    flags = [*SHORT, *CONSTANT, *flags, "--unfreeze_epochs=0.5", f"--model_dir={tmp_path}/run"]
    status, _, error = done(capsys, command, *flags)
    assert status == 2
    assert message in error


def test_plan_foresees_the_change(capsys):
    status, out, _ = done(capsys, "plan", *FLAGS)
    assert status == 0
    assert "layers that match (?!dense) are frozen up to epoch 0.5; the step is then traced" in out
    _, out, _ = done(capsys, "plan", *FLAGS, "--unfreeze_epochs=0")  # It changes nothing.
    assert "frozen" not in out


def test_memory_is_measured_with_all_layers(cpus):
    strategy = tf.distribute.OneDeviceStrategy(cpus[0])
    model = tiny(ghost=16)
    frozen = freeze(model, "(?!dense)")
    new_step = functools.partial(step_on, strategy, lambda: model)
    phases = Phases(new_step, frozen, 640, new_step())
    assert [len(step.parameters) for step in (phases.step, phases.step_of_all())] == [2, 5]
    assert len(new_step().parameters) == 2
    assert phases.move_to(640)
    assert len(phases.step.parameters) == 5
    assert phases.step_of_all() is phases.step
    assert not phases.move_to(1280)


@pytest.mark.parametrize(("until", "count"), [(None, 2), (1, 2), (0, 5)])
def test_layers_that_train_from_position_0_are_not_frozen(cpus, until, count):
    strategy = tf.distribute.OneDeviceStrategy(cpus[0])
    config = parsed("--freeze=(?!dense)", "--deterministic")
    parts = config, strategy, tiny(ghost=16), 1, until, None, ProcessGroup()
    phases = run_setup._phases(*parts)
    assert len(phases.step.parameters) == count
    assert phases.move_to(0) is False
    assert len(phases.step_of_all().parameters) == (2 if until is None else 5)
