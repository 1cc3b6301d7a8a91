"""forked_from.json: written, read again, and damaged."""

import dataclasses
import json

import pytest

from tests.support.configs import parsed
from trainer.run_dir import lineage
from trainer.run_dir.directory import DamagedRunError
from trainer.run_dir.lineage import Lineage

SETTING = {"batch_size": 128, "learning_rate": 0.1, "momentum": 0.9, "noise_scale": 125.0}
POINT = {"split": "eval", "update": 100, "position": 12800, "epoch": 0.8, "time": 1.6e9}
FORK = Lineage(
    *("runs/a@best", "/runs/a", 125, 16000, 1.0, ["--seed=1"], SETTING, SETTING),
    evaluations={"eval": {**POINT, "top1": 0.5, "loss": 1.0}},
)


def test_what_is_written_is_read(tmp_path):
    assert lineage.read(tmp_path) is None
    lineage.write(tmp_path, FORK)
    assert lineage.read(tmp_path) == FORK
    flags = [f"--model_dir={tmp_path}", "--fork_from=runs/a@best"]
    assert lineage.of_child(parsed(*flags)) == FORK
    assert lineage.of_child(parsed(flags[0], "--fork_from=runs/b@best")) is None
    assert lineage.of_child(parsed(flags[1])) is None


def test_a_record_of_an_earlier_version_is_read(tmp_path):
    """Without a start, the average began at position 0."""
    old = dataclasses.asdict(FORK)
    del old["average_start"]
    (tmp_path / lineage.FILE).write_text(json.dumps(old))
    assert lineage.read(tmp_path) == FORK


@pytest.mark.parametrize("name", [field.name for field in dataclasses.fields(Lineage)])
def test_a_damaged_record_is_named(tmp_path, name):
    damaged = dataclasses.asdict(FORK) | {name: [None]}
    (tmp_path / lineage.FILE).write_text(json.dumps(damaged))
    with pytest.raises(DamagedRunError, match=f"forked_from.json is damaged: {name}"):
        lineage.read(tmp_path)


def test_a_step_of_the_noise_scale_is_told():
    half = SETTING | {"learning_rate": 0.05, "noise_scale": 62.5}
    first, second = dataclasses.replace(FORK, after=half).lines()
    assert first == (
        "begins with /runs/a at update 125, epoch 1.00: batch size 128, learning rate 0.1 → 0.05, "
        "momentum 0.9, noise scale 125 → 62.5"
    )
    assert second.startswith("the noise scale changes by a factor of 0.5 at the fork")
    assert len(FORK.lines()) == 1
