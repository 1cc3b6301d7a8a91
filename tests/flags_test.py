"""Every recipe in flags/ is parsed and planned, and says what a recipe must say."""

import pathlib
import re

import pytest

from tests.support.configs import layouts, parsed
from trainer.commands import sweep
from trainer.data.tfds import sizes
from trainer.schedule import plan, trajectory
from trainer.sweep import grid
from trainer.sweep.sweep_folder import SweepFolder

RECIPES = sorted(pathlib.Path("flags").glob("**/*.flags"))
SWEEPS = [path for path in RECIPES if "--sweep=" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_what_a_recipe_must_say(recipe):
    text = recipe.read_text(encoding="utf-8")
    head = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    assert "# Source: " in head
    command = "sweep" if recipe in SWEEPS else "train"
    assert f"# Command: python -m trainer {command} --flagfile={recipe} " in head
    assert "not yet measured" in head or "n = " in head


@pytest.mark.parametrize("recipe", [r for r in RECIPES if r not in SWEEPS], ids=lambda p: p.stem)
def test_a_recipe_can_be_trained(recipe):
    config = parsed(f"--flagfile={recipe}")
    if config.dataset.startswith("image_folder:"):  # A user's folder, of any size.
        examples = 4_000
    else:
        examples = sizes.count_examples(config.dataset, config.train_split, config.data_dir)
    ramps = plan.ramps(trajectory.from_config(config, examples, 1), layouts(config))
    updates = sum(ramp.first.updates for ramp in ramps)
    assert updates > 0
    title = recipe.read_text(encoding="utf-8").splitlines()[0]
    if claimed := re.search(r": ([\d,]+) updates", title):
        assert claimed[1] == f"{updates:,}"


@pytest.mark.parametrize("recipe", SWEEPS, ids=lambda path: path.stem)
def test_every_point_of_a_sweep_can_be_trained(recipe, tmp_path):
    asked = parsed(f"--flagfile={recipe}")
    runs, wrong, _ = sweep.checked(asked, grid.parse(asked.sweep), SweepFolder(tmp_path))
    assert wrong == {}
    assert len(runs) == len(grid.parse(asked.sweep)) > 1
    configs = [parsed(*run.flags) for run in runs]
    assert len(set(map(str, configs))) == len(runs)


def test_the_five_schedules_are_told_apart_by_their_recipes(tmp_path):
    """The length that the sweep names wins over theirs, and their batches over its."""
    asked = parsed("--flagfile=flags/fashion_mnist_sweep_schedules.flags")
    runs, *_ = sweep.checked(asked, grid.parse(asked.sweep), SweepFolder(tmp_path))
    configs = [parsed(*run.flags) for run in runs]
    assert {config.epochs for config in configs} == {24.0}
    assert [config.anneal_with for config in configs[:5]] == [
        *("learning_rate", "hybrid", "batch_size", "batch_size", "batch_size")
    ]
    assert [config.seed for config in configs[::5]] == [0, 1, 2]


def test_the_grid_of_base_rates_is_of_rates_per_example(tmp_path):
    """Masters & Luschi 2018: ε = B times the base rate."""
    asked = parsed("--flagfile=flags/fashion_mnist_sweep_base_rate.flags")
    runs, *_ = sweep.checked(asked, grid.parse(asked.sweep), SweepFolder(tmp_path))
    for run in runs:
        config = parsed(*run.flags)
        start = trajectory.from_config(config, 60_000, 1).start
        assert start.batch_size == int(run.point["initial_batch_size"])
        rate = start.batch_size * float(run.point["base_learning_rate"])
        assert start.learning_rate == pytest.approx(rate)
        assert start.momentum == 0
        assert config.ghost_batch_size == min(32, start.batch_size)
