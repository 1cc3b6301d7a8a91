"""Numbers of workers by phase: against a search over all sequences, and against closed forms."""

import dataclasses
import itertools
import random

import pytest

from tests.support.configs import parsed
from trainer.errors import UserError
from trainer.schedule import cost, trajectory, worker_counts
from trainer.schedule.cost import Compute, Machines
from trainer.schedule.plan import Phase

WORKER = Machines(
    replicas=1, hosts=1, compute=Compute(1e-3), parameters=1_000_000, bandwidth=1.0, latency=0.0
)


def phase(batch_size, updates, start_update=0):
    return Phase(0.0, start_update, updates, batch_size, 0.1, 0.9, 1.0, 32, batch_size // 32)


def choose(phases, counts=range(1, 9), on=WORKER, **values):
    options = {"unit": 32, "min_efficiency": 0.8, "change_seconds": 0.0, **values}
    return worker_counts.choose(phases, on, counts, **options)


def seconds(batch_size, workers):
    """The formula of cost.py, written anew."""
    ring = 2 * (workers - 1) / workers * 1_000_000 * 4 * 8 / 1e9
    return batch_size / workers * 1e-3 + ring


def test_efficiency_limits_the_number():
    found = choose([phase(256, 100), phase(2048, 100)])
    for batch_size, workers in zip((256, 2048), found.workers, strict=True):
        efficient = [
            w for w in (1, 2, 4, 8) if seconds(batch_size, 1) / seconds(batch_size, w) / w >= 0.8
        ]
        assert workers == max(efficient)
    assert found.workers == [2, 8]
    expected = 100 * (seconds(256, 2) + seconds(2048, 8))
    assert found.duration.seconds == pytest.approx(expected)
    assert found.duration.worker_seconds == pytest.approx(
        100 * (2 * seconds(256, 2) + 8 * seconds(2048, 8))
    )


def test_a_change_that_costs_more_than_it_saves_is_not_made():
    phases = [phase(256, 100), phase(2048, 100)]
    saved = 100 * (seconds(2048, 2) - seconds(2048, 8))
    assert choose(phases, change_seconds=saved * 0.99).workers == [2, 8]
    assert choose(phases, change_seconds=saved * 1.01).workers == [2, 2]


@pytest.mark.parametrize("number", range(30))
def test_no_other_sequence_is_shorter(number):
    draw = random.Random(number)
    sizes = [32 * draw.randrange(1, 40) for _ in range(draw.randrange(1, 5))]
    phases = [phase(size, draw.randrange(1, 200)) for size in sizes]
    on = dataclasses.replace(WORKER, compute=Compute(1e-3, draw.choice([0.0, 0.01])))
    change, least = draw.choice([0.0, 3.0, 30.0]), draw.choice([0.0, 0.5, 0.9])
    found = choose(phases, on=on, change_seconds=change, min_efficiency=least)

    def time(each, w):
        return cost.total([each], dataclasses.replace(on, hosts=w, replicas=w))

    choices = []
    for each in phases:
        allowed = [w for w in range(1, 9) if each.batch_size % (32 * w) == 0]
        good = [w for w in allowed if time(each, 1) / time(each, w) / w >= least]
        choices.append(sorted({allowed[0], *good}))

    def whole(workers):
        changes = sum(a != b for a, b in itertools.pairwise(workers))
        return changes * change + sum(map(time, phases, workers))

    best = min(map(whole, itertools.product(*choices)))
    assert whole(found.workers) == pytest.approx(best)
    assert found.duration.seconds == pytest.approx(best)
    assert all(w in numbers for w, numbers in zip(found.workers, choices, strict=True))


def test_replicas_and_ghost_batches_decide_which_numbers_are_allowed():
    on = dataclasses.replace(WORKER, replicas=2)
    found = choose([phase(320, 10), phase(960, 10)], on=on, min_efficiency=0.0)
    assert found.workers == [5, 5]
    assert [*found.fixed] == [1, 5]
    with pytest.raises(
        UserError, match=r"--workers=2:4 has no number of workers, of 2 replicas each, that"
    ):
        choose([phase(320, 10)], counts=range(2, 5), on=on)


def test_the_table_and_the_json_have_the_changes_and_the_fixed_numbers():
    phases = [phase(256, 100), phase(256, 50, 100), phase(2048, 100, 150)]
    found = choose(phases)
    assert [w for _, w in found.changes()] == [2, 8]
    first, second, third, *rest = found.text().splitlines()
    assert first.split() == ["epoch", "update", "batch", "workers"]
    assert second.split()[1:] == ["0", "256", "2"]
    assert third.split()[1:] == ["150", "2048", "8"]
    names = ("as above", *(f"always {w}" for w in (1, 2, 4, 8)))
    for line, name in zip(rest[1:], names, strict=True):
        assert line.strip().startswith(name)
    shown = found.as_json()
    assert [each["workers"] for each in shown["phases"]] == [2, 8]
    alone = shown["fixed"]["1"]
    assert alone["worker_hours"] == pytest.approx(alone["seconds"] / 3600)


def test_a_change_at_the_first_phase_costs_too():
    phases = [phase(256, 100), phase(2048, 100)]
    saved = 100 * (seconds(256, 1) - seconds(256, 2))
    assert choose(phases, current=1, change_seconds=saved * 0.99).workers == [2, 8]
    assert choose(phases, current=1, change_seconds=saved * 1.01).workers == [1, 8]
    assert choose(phases, current=2, change_seconds=saved * 1.01).workers == [2, 8]


def elastic(*flags):
    flags = (
        "--strategy=multi_worker",
        "--anneal=step",
        "--anneal_epochs=50%",
        "--anneal_with=batch_size",
        *flags,
    )
    return worker_counts.schedule_of(parsed(*flags), 60_000, 3, 3)


def test_the_workers_of_a_batch_need_not_share_the_other_batches():
    """Three workers cannot share a batch of 128, which has four ghost batches."""
    with pytest.raises(UserError, match=r"128 is not a multiple of 3 replicas"):
        elastic()
    plain = parsed("--anneal=step", "--anneal_epochs=50%", "--anneal_with=batch_size")
    one, found = trajectory.from_config(plain, 60_000, 1), elastic("--workers=1:8")
    positions = range(0, one.end, 10_000)
    assert [found.at(position) for position in positions] == [one.at(p) for p in positions]


@pytest.mark.parametrize(
    ("flags", "size"),
    [
        (["--workers=5:7"], 128),
        (["--workers=2:3", "--initial_batch_size=192", "--max_batch_size=352"], 352),
        (
            [
                "--anneal=measured",
                "--anneal_epochs=",
                "--micro_batch_size=64",
                "--max_batch_size=160",
            ],
            160,
        ),
    ],
)
def test_a_range_that_cannot_share_every_batch_is_refused(flags, size):
    with pytest.raises(UserError, match=f"that can share a batch of {size}: "):
        elastic("--workers=1:2", *flags)
