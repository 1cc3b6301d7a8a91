"""The image size changes at its epochs, and changes nothing else of the schedule."""

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.configs import layouts, parsed, updates
from trainer.config import image_sizes
from trainer.errors import UserError
from trainer.schedule import cost, notes, plan, resolution
from trainer.schedule.stretch import next_stretch
from trainer.schedule.trajectory import from_config

GROW = ["--flagfile=flags/fashion_mnist_grow.flags", "--warmup_epochs=2"]
EXAMPLES = 60_000


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(1, 999), max_size=3, unique=True), st.sampled_from([1, 2, 7]))
def test_each_update_has_the_size_of_the_last_point_before_it(points, replicas):
    texts = ["32@0%", *(f"{64 + n}@{point / 10}%" for n, point in enumerate(sorted(points)))]
    flags = [
        *GROW,
        "--ghost_batch_size=1",
        "--initial_batch_size=126",
        "--max_batch_size=5880",
        "--epochs=4",
    ]
    with_sizes = from_config(parsed(*flags, f"--image_sizes={','.join(texts)}"), EXAMPLES, replicas)
    without = from_config(parsed(*flags), EXAMPLES, replicas)
    found = list(updates(with_sizes))
    assert found == list(updates(without))
    for position, _ in found:
        begun = [text for text in texts if starts_by(text, position)]
        assert with_sizes.image_size(position) == int(begun[-1].partition("@")[0])
    counted = plan.phases(with_sizes, layouts(parsed(*flags), replicas, 126))
    sizes = [phase.image_size for phase in counted for _ in range(phase.updates)]
    assert sizes == [with_sizes.image_size(position) for position, _ in found]


def starts_by(text, position):
    """Whether the point of a text such as 64@12.5% is at or before a position, exactly."""
    tenths = round(10 * float(text.partition("@")[2].removesuffix("%")))
    return position * 1000 >= tenths * 4 * EXAMPLES


def test_a_stretch_has_one_size():
    schedule = from_config(parsed(*GROW, "--image_sizes=14@0,20@0.5,28@1"), EXAMPLES, 1)
    position, found = 0, []
    layout = {"replicas": 1, "ghost_batch_size": 32, "micro_batch_size": 128}
    while position < EXAMPLES:
        stretch = next_stretch(
            schedule, position, until=2 * EXAMPLES, most_updates=10_000, **layout
        )
        of_each = range(position, stretch.end, stretch.batch_size)
        assert {schedule.image_size(at) for at in of_each} == {stretch.image_size}
        found.append((stretch.image_size, position))
        position = stretch.end
    # The first update that starts at or after 30,000 examples has the second size.
    assert found == [(14, 0), (20, 30_080)]


def test_ramps_count_all_updates_of_each_size():
    config = parsed(*GROW, "--anneal=cosine", "--anneal_epochs=", "--image_sizes=14@0,28@3")
    schedule = from_config(config, EXAMPLES, 1)
    ramps = [ramp.first for ramp in plan.ramps(schedule, layouts(config))]
    phases = list(plan.phases(schedule, layouts(config)))
    for size in (14, 28):
        counts = [
            sum(phase.updates for phase in found if phase.image_size == size)
            for found in (ramps, phases)
        ]
        assert counts[0] == counts[1] > 0
    assert {ramp.last.image_size for ramp in plan.ramps(schedule, layouts(config))} == {14, 28}


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("128", "it must be a list of SIZE@EPOCH or SIZE@PERCENT, as in 128@0%,160@40%,192@75%"),
        ("128@0,160@x%", "has '160@x%'"),
        ("128@0,1.5@3", "has '1.5@3'"),
        ("128@0,160@-1", "has '160@-1'"),
        ("128@0,160@nan", "has '160@nan'"),
        ("128@0,160@inf", "has '160@inf'"),
        ("128@1%", "must begin at 0"),
        ("0@0%", "from 1 to 65536 pixels"),
        ("70000@0%", "from 1 to 65536 pixels"),
    ],
)
def test_what_is_no_list_of_sizes_is_refused(value, message):
    assert message in image_sizes.problem(value.split(","))
    with pytest.raises(UserError, match="--image_sizes"):
        parsed(*GROW, f"--image_sizes={value}")


@pytest.mark.parametrize(
    "value", ["14@0,28@16", "14@0,20@5,28@5", "14@0,20@50%,28@25%", "14@0,28@0"]
)
def test_epochs_out_of_order_or_outside_the_run_are_refused(value):
    with pytest.raises(UserError, match=r"--image_sizes has 2\d@.*inside the run of 16 epochs"):
        from_config(parsed(*GROW, f"--image_sizes={value}"), EXAMPLES, 1)


def test_the_cost_follows_the_pixels():
    config = parsed(*GROW, "--image_sizes=14@0,28@8")
    schedule = from_config(config, EXAMPLES, 1)
    phases = list(plan.phases(schedule, layouts(config)))
    seconds = 1e-3
    machines = cost.Machines(1, 1, cost.Compute(seconds), 0, 1.0, 0.0, image_size=28)
    by_size = {
        size: sum(p.updates * p.batch_size for p in phases if p.image_size == size)
        for size in (14, 28)
    }
    expected = seconds * (by_size[14] / 4 + by_size[28])
    assert cost.total(phases, machines) == pytest.approx(expected)
    parts = [(p.updates * p.batch_size, p.image_size) for p in phases]
    share = resolution.relative_cost(parts, 28)
    assert share == pytest.approx(expected / seconds / sum(by_size.values()))


def test_a_runs_times_are_those_of_its_last_size():
    points = [
        {"batch_size": b, "examples_per_second": rate, "image_size": size}
        for b, rate, size in ((128, 1000, 14), (128, 256, 28), (640, 320, 28))
    ]
    assert cost.medians(points) == {128: 0.5, 640: 2.0}
    plain = [{k: v for k, v in p.items() if k != "image_size"} for p in points[1:]]
    assert cost.medians(itertools.chain(plain)) == {128: 0.5, 640: 2.0}


def test_a_size_without_an_update_is_named():
    config = parsed(*GROW, "--image_sizes=14@0,20@1,28@1.0001")
    schedule = from_config(config, EXAMPLES, 1)
    phases = list(plan.phases(schedule, layouts(config)))
    found = notes.lines(config, schedule, phases)
    assert found[0] == (
        "no update has images of 20 pixels, because their part of the run is shorter than an "
        "update: make it longer"
    )
    config = parsed(*GROW, "--image_sizes=14@0,28@1")
    assert "no update" not in "".join(notes.lines(config, schedule, phases))


def test_a_size_before_a_fork_is_not_called_too_short():
    config = parsed(*GROW, "--image_sizes=14@0,20@4,24@8.0001,28@8.0002")
    schedule = from_config(config, EXAMPLES, 1)
    for epoch, unused in ((0, [24]), (4, [24]), (7, [24]), (9, [])):
        begin = plan.Begin(epoch * EXAMPLES, 1)
        found = notes.lines(config, schedule, list(plan.phases(schedule, layouts(config), begin)))
        assert [line.split()[5] for line in found if "no update" in line] == [*map(str, unused)]
