"""Lines about flags that change the learning rate unasked, or that change nothing."""

import pytest

from tests.support.configs import layouts, parsed
from trainer.schedule import notes, plan
from trainer.schedule.trajectory import from_config

STEP = ("--anneal=step", "--anneal_epochs=50%")
BY_BATCH = (*STEP, "--anneal_with=batch_size")


def lines(*arguments):
    config = parsed(*arguments)
    schedule = from_config(config, 60_000, 1)
    return notes.lines(config, schedule, list(plan.phases(schedule, layouts(config))))


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--max_batch_size=640"], "--max_batch_size: no effect, because the batch does not grow"),
        (
            ["--max_batch_size=640", "--anneal_with=batch_size"],
            "--max_batch_size: no effect, because the batch does not grow",
        ),
        (
            ["--momentum_to=0.5", "--anneal_with=batch_size"],
            "--momentum_to: no effect with --anneal=constant",
        ),
        (
            [*BY_BATCH, "--batch_anneals=2"],
            "--batch_anneals: no effect without --anneal_with=hybrid",
        ),
        (["--warmup_from=0.1"], "--warmup_from: no effect without --warmup_epochs"),
        (
            ["--warmup_epochs=5"],
            "--warmup_epochs: no effect, because the warm-up begins at the full learning rate: "
            "use a lower --warmup_from, such as 0.1, or a larger batch",
        ),
    ],
)
def test_flags_without_an_effect_are_named(arguments, line):
    assert lines(*arguments) == [line]


@pytest.mark.parametrize(
    "arguments",
    [
        [*BY_BATCH, "--max_batch_size=640", "--momentum_to=0.5"],
        ["--anneal=measured", "--max_batch_size=640"],
        [*STEP, "--anneal_with=hybrid", "--batch_anneals=2", "--max_batch_size=640"],
        ["--warmup_epochs=5", "--warmup_from=0.1"],
        ["--warmup_epochs=5", "--initial_batch_size=640"],
        # A range test leaves out the schedule of a recipe.
        ["--anneal=range_test", "--max_batch_size=640"],
        ["--initial_learning_rate=0.0125"],  # The batch is half a ghost batch, and rounded up.
        ["--initial_learning_rate=0.001", "--ghost_batch_size=1"],
        ["--initial_learning_rate=0.001", "--scaling=none"],
    ],
)
def test_flags_with_an_effect_are_not_named(arguments):
    assert lines(*arguments) == []


def test_a_learning_rate_that_needs_a_smaller_batch_is_named():
    (line,) = lines("--initial_learning_rate=0.001")
    assert line.startswith("the learning rate is 0.025, and not --initial_learning_rate=0.001, ")
    assert "below one ghost batch of 32: use a smaller --ghost_batch_size" in line
    (line,) = lines(
        "--momentum=0", "--base_batch_size=32", "--ghost_batch_size=32", "--base_momentum=0.99"
    )
    assert line.startswith("the learning rate is ")
