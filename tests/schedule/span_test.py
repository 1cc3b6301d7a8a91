"""Spans and ramps have the same updates as a loop that steps through them one by one."""

import itertools
import random

import pytest

from tests.support.configs import parsed, updates
from trainer.errors import UserError
from trainer.schedule import plan
from trainer.schedule.layout import Layout
from trainer.schedule.span import next_span, spans
from trainer.schedule.trajectory import from_config

ANNEALS = [
    ["--anneal=constant"],
    ["--anneal=step", "--anneal_epochs=20%,50%,51%"],
    ["--anneal=step", "--anneal_epochs=50%", "--anneal_factor=3"],
    ["--anneal=cosine"],
    ["--anneal=polynomial", "--anneal_power=1.5"],
    ["--anneal=polynomial", "--anneal_power=0.3"],
    ["--anneal=exponential", "--anneal_epochs=40%"],
    ["--anneal=cyclical", "--cycle_epochs=0.7"],
    ["--anneal=cyclical", "--cycle_epochs=1.3", "--cycle_factor=0.5"],
    ["--anneal=cyclical", "--cycle_factor=0.999", "--cycle_factor_per=update"],
    ["--anneal=cyclical", "--cycle_factor=0.97", "--cycle_factor_per=update"],
    ["--anneal=plateau"],
    ["--anneal=measured"],
    ["--anneal=range_test"],
    ["--anneal=range_test", "--range_scale=linear"],
]


def schedule(seed):
    """Returns the trajectory of random flags that the program accepts."""
    draw = random.Random(seed)
    while True:
        flags = [
            *draw.choice(ANNEALS),
            f"--epochs={draw.choice([0.3, 1, 2.5, 3.7, 7])}",
            f"--anneal_with={draw.choice(['learning_rate', 'hybrid', 'batch_size'])}",
            f"--initial_batch_size={draw.choice([1, 2, 3, 8, 32, 40])}",
            f"--ghost_batch_size={draw.choice([1, 2, 8])}",
            f"--warmup_epochs={draw.choice([0, 0, 0.3, 2.1])}",
            f"--scaling={draw.choice(['linear', 'linear', 'sqrt'])}",
        ]
        if draw.random() < 0.4:
            flags += [f"--momentum_warmup_epochs={draw.choice([0.4, 1, 5])}", "--momentum=0.98"]
        if draw.random() < 0.3:
            flags += [f"--momentum_to={draw.choice([0.5, 0.8])}"]
        if draw.random() < 0.3:
            flags += [f"--max_batch_size={draw.choice([64, 80, 120])}"]
        try:
            return from_config(parsed(*flags), draw.choice([397, 400, 512, 1601]), 1)
        except UserError:
            continue


@pytest.mark.parametrize("first", range(0, 200, 25))
def test_spans_and_ramps_hold_the_updates_of_200_random_schedules(first):
    for seed in range(first, first + 25):
        run = schedule(seed)
        one_by_one = list(updates(run))
        assert in_spans(run) == one_by_one, seed
        check_ramps(run, one_by_one)


def in_spans(run):
    """Returns the positions and Settings of the updates of all spans."""
    found = []
    for span in spans(run):
        assert span.updates >= 1
        for update in range(span.updates):
            position = span.position_of(update)
            setting = span.first if span.flat else run.at(position)
            assert setting.batch_size == span.first.batch_size
            found.append((position, setting))
    return found


def check_ramps(run, one_by_one):
    """Compares the ramps of plan's table, and its phases of equal Settings, with single updates.

    A ramp rises or falls from its first to its last update.
    """

    def layout(size, _):
        return Layout(1, size, 1)

    grouped = itertools.groupby(setting for _, setting in one_by_one)
    found = [phase.updates for phase in plan.phases(run, layout)]
    assert found == [len(list(group)) for _, group in grouped]
    at = 0
    for ramp in plan.ramps(run, layout):
        settings = [setting for _, setting in one_by_one[at : at + ramp.first.updates]]
        assert ramp.position == one_by_one[at][0]
        at += len(settings)
        for name in ("batch_size", "learning_rate", "momentum"):
            values = [getattr(setting, name) for setting in settings]
            assert values[0] == getattr(ramp.first, name)
            assert values[-1] == getattr(ramp.last, name)
            if name == "learning_rate":
                assert values in (sorted(values), sorted(values, reverse=True)), name
    assert at == len(one_by_one)


def test_spans_begin_at_turns_and_changes_of_the_batch_size_alone():
    """A span's updates start before the next turn, and the span is as long as it can be."""
    runs = [schedule(seed) for seed in range(100)]
    assert sum(run.next_turn(0) < run.end / run.examples for run in runs) > 40
    for run in runs:
        found = list(spans(run))
        for span in found:
            turn = run.next_turn(span.position / run.examples)
            assert span.updates == 1 or span.position_of(span.updates - 1) / run.examples < turn
        for span, after in itertools.pairwise(found):
            epochs = span.position / run.examples
            goes_on = (
                after.first.batch_size == span.first.batch_size
                and span.end / run.examples < run.next_turn(epochs)
                and (not run.batch_moves or run.batch_moves_one_way(epochs))
            )
            assert not goes_on


def test_a_span_ends_with_the_update_that_reaches_until():
    run = from_config(parsed("--initial_batch_size=32", "--epochs=2"), 1000, 1)
    span = next_span(run, 64, 200)
    assert (span.position, span.updates, span.end) == (64, 5, 224)
    assert next_span(run, 64, 192).end == 192
