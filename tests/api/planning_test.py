"""trainer.plan returns what the command prints, and trainer.trajectory the schedule itself."""

import json

import pytest

import trainer
from tests.support.configs import done, updates

WRN = {"train_examples": 50_000, "epochs": 200, "anneal": "step", "anneal_factor": 5}
WRN |= {"anneal_epochs": [60, 120, 160], "max_batch_size": 5120, "base_batch_size": 128}


def test_plan_is_what_the_command_prints(capsys):
    found = trainer.plan("fashion_mnist_grow", epochs=8)
    status, printed, _ = done(
        capsys, "plan", "--flagfile=fashion_mnist_grow", "--epochs=8", "--format=json"
    )
    assert status == 0
    assert found == json.loads(printed)


def test_plan_has_the_paper_s_numbers():
    assert trainer.plan(**WRN)["total_updates"] == 78_125
    found = trainer.plan(**WRN, anneal_with="batch_size")["total_updates"]
    assert found == pytest.approx(29_141, abs=1)  # The last batch may be rounded.


def test_plan_draws_a_figure(tmp_path):
    trainer.plan(epochs=1, plot=tmp_path / "plan.png")
    assert (tmp_path / "plan.png").read_bytes().startswith(b"\x89PNG")


def test_plan_predicts_the_duration():
    found = trainer.plan(epochs=1, plan_replicas=2, plan_examples_per_second=1000.0)
    assert found["seconds"] == pytest.approx(30, rel=0.1)


def test_plan_names_a_wrong_value():
    with pytest.raises(trainer.UserError, match="32 is below the initial batch size 128"):
        trainer.plan(max_batch_size=32)


def test_trajectory_is_the_plan_update_for_update():
    schedule = trainer.trajectory(examples=1000, epochs=4, anneal="step", anneal_epochs=[2])
    assert schedule.at(0).batch_size == 128
    assert schedule.at(2000).learning_rate == pytest.approx(schedule.at(0).learning_rate / 5)
    count = sum(1 for _ in updates(schedule))
    plan = trainer.plan(train_examples=1000, epochs=4, anneal="step", anneal_epochs=[2])
    assert count == plan["total_updates"]


def test_trajectory_of_a_fork_is_that_of_its_plan(tmp_path):
    parent = tmp_path / "parent"
    parent.mkdir()
    (parent / "flags.txt").write_text("--order_version=2\n--initial_batch_size=64\n--epochs=4\n")
    schedule = trainer.trajectory(examples=1000, fork_from=f"{parent}@newest", epochs=6)
    assert schedule.at(0).batch_size == 64
    assert schedule.end == 6000


def test_trajectory_refuses_to_draw(tmp_path):
    with pytest.raises(trainer.UserError, match=r"trainer\.plan draws"):
        trainer.trajectory(examples=1000, plot=tmp_path / "plan.png")


def test_trajectory_suggests_its_own_arguments():
    with pytest.raises(trainer.UserError, match=r"did you mean .*examples"):
        trainer.trajectory(examples=1000, exampels=3)
