"""Every recipe in flags/ is parsed and planned, and says what a recipe must say."""

import pathlib
import re

import pytest

from tests.configs import parsed
from trainer.data import sizes
from trainer.schedule import plan, trajectory

RECIPES = sorted(pathlib.Path("flags").glob("**/*.flags"))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_recipe(recipe):
    config = parsed(f"--flagfile={recipe}")
    examples = sizes.count_examples(config.dataset, config.train_split, config.data_dir)
    phases = plan.phases(
        trajectory.from_config(config, examples, 1),
        replicas=1,
        ghost_batch_size=config.ghost_batch_size,
        micro_batch_size=128,
    )
    updates = sum(phase.updates for phase in phases)
    assert updates > 0
    text = recipe.read_text(encoding="utf-8")
    head = "\n".join(line for line in text.splitlines() if line.startswith("#"))
    if claimed := re.search(r": ([\d,]+) updates", text.splitlines()[0]):
        assert claimed[1] == f"{updates:,}"
    assert "# Source: " in head
    assert f"--flagfile={recipe} " in head
    assert "not yet measured" in head or "n = " in head
