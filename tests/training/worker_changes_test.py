"""Decisions on the number of workers, from a real trajectory and a state that the tests move."""

import itertools
import types

import pytest

from tests.support.configs import parsed
from trainer.errors import UserError
from trainer.run_dir import wanted_workers
from trainer.run_dir.wanted_workers import Request
from trainer.schedule import trajectory
from trainer.schedule.layout import Layout
from trainer.schedule.stretch import Stretch
from trainer.training.worker_changes import WorkerChanges

# B 128 → 640 at 0.6 epochs → 2,560 at 1.2. With this link, 1, 2 and 4 workers have an efficiency
# above 0.8 in these phases, and twice as many have not.
FLAGS = (
    "--strategy=multi_worker",
    "--workers=1:8",
    "--initial_batch_size=128",
    *("--anneal=step", "--anneal_epochs=0.6,1.2", "--anneal_with=batch_size", "--epochs=3"),
    *("--plan_link_latency=20000", "--plan_link_bandwidth=1000", "--plan_change_seconds=0"),
    "--max_batch_size=2560",
)
SPEED = "--plan_examples_per_second=1000"
EXAMPLES = 12_800


def changes(path, count, *flags, position=0, chief=True):
    config = parsed(*FLAGS, *flags)
    strategy = types.SimpleNamespace(num_replicas_in_sync=count)
    model = types.SimpleNamespace(weights=[])
    run = types.SimpleNamespace(
        path=path,
        group=types.SimpleNamespace(chief=chief, count=count),
        trajectory=trajectory.from_config(config, EXAMPLES, 1),
        phases=types.SimpleNamespace(
            step=types.SimpleNamespace(strategy=strategy, model=model),
        ),
        state=types.SimpleNamespace(position=position, update=0),
    )
    return WorkerChanges(config, run), run


def wanted(found, run, *epochs):
    numbers = []
    for epoch in epochs:
        run.state.position = int(epoch * EXAMPLES)
        run.state.update = run.state.position // 128
        numbers.append(found.wanted())
    return numbers


def test_each_batch_size_is_decided_once_by_the_cost_model(tmp_path):
    assert wanted(*changes(tmp_path, 1, SPEED), 0, 0.3, 0.6, 0.8, 1.2, 2.9) == [0, 0, 2, 0, 4, 0]
    assert wanted(*changes(tmp_path, 2, SPEED), 0, 0.3, 0.6, 0.8, 1.2) == [1, 0, 0, 0, 4]
    assert wanted(*changes(tmp_path, 4, SPEED), 1.3, 2.0) == [0, 0]


def test_other_processes_and_other_runs_never_change(tmp_path):
    assert wanted(*changes(tmp_path, 2, SPEED, chief=False), 0, 0.6, 1.2) == [0, 0, 0]
    config = parsed("--anneal=step", "--anneal_epochs=0.6")
    _, run = changes(tmp_path, 2)
    assert wanted(WorkerChanges(config, run), run, 0, 0.6) == [0, 0]


def stretch(batch_size, updates=10):
    setting = types.SimpleNamespace(batch_size=batch_size)
    return Stretch(0, (setting,) * updates, Layout(1, 32, batch_size // 32))


def test_the_speed_is_measured_before_the_first_decision(tmp_path):
    """4 workers of 1,000 examples/s, with 6 steps of the ring, 20 ms each."""
    found, run = changes(tmp_path, 4)
    assert wanted(found, run, 0) == [0]
    seconds = 10 * (128 / 4 / 1000 + 6 * 0.02)
    for _ in range(3):
        found.trained(stretch(128), seconds)
        assert wanted(found, run, 0.1) == [0]
    found.trained(stretch(128), seconds)
    assert wanted(found, run, 0.2, 0.3, 0.6) == [1, 0, 2]


def test_a_slow_first_stretch_does_not_count(tmp_path):
    found, run = changes(tmp_path, 1)
    for seconds in (100.0, 1.28, 1.28, 1.28):  # 1,000 examples/s, after the first.
        found.trained(stretch(128), seconds)
    assert wanted(found, run, 0, 0.6, 1.2) == [0, 2, 4]


def test_the_speed_is_measured_over_growths(tmp_path):
    """Each stretch may have another batch size."""
    found, run = changes(tmp_path, 1)
    for size in (128, 256, 384, 512):
        found.trained(stretch(size), 10 * size / 1000)
    assert wanted(found, run, 0.6) == [2]


def test_the_speed_of_another_image_size_is_measured_anew(tmp_path):
    found, run = changes(tmp_path, 1)
    for side, seconds in ((20, 1.28), (20, 1.28), (20, 1.28), (28, 9.0), (28, 2.56), (28, 2.56)):
        setting = types.SimpleNamespace(batch_size=128)
        found.trained(Stretch(0, (setting,) * 10, Layout(1, 32, 4), side), seconds)
    assert wanted(found, run, 0.6) == [0]  # Two stretches of each size are too few.


def test_a_link_that_is_faster_than_the_flags_leaves_a_speed(tmp_path):
    found, run = changes(tmp_path, 4)
    for _ in range(4):
        found.trained(stretch(2560), 1e-3)
    assert wanted(found, run, 1.2) == [1]  # The flags' link takes longer than all examples.


def test_workers_that_cannot_share_the_batch_leave_at_once(tmp_path):
    assert wanted(*changes(tmp_path, 3), 0) == [2]
    assert wanted(*changes(tmp_path, 8), 0) == [4]
    assert wanted(*changes(tmp_path, 3, "--workers=4:8"), 0) == [4]


def test_after_a_start_the_workers_that_came_go_on(tmp_path, logged):
    wanted_workers.write(tmp_path, Request(4, 2560, 130))
    assert wanted(*changes(tmp_path, 4, SPEED), 1.3, 1.5) == [0, 0]
    assert logged == []
    assert wanted(*changes(tmp_path, 1, SPEED), 1.3, 1.5) == [0, 0]
    (line,) = logged
    assert line.startswith(
        "the run asked for 4 workers for the batch of 2560, and one worker came: "
    )


@pytest.mark.parametrize(
    "old", [Request(4, 640, 130), Request(4, 2560, 129), Request(9, 2560, 130)]
)
def test_an_old_request_decides_nothing(tmp_path, old):
    """Another batch size, another update, or a number that is not in --workers."""
    wanted_workers.write(tmp_path, old)
    assert wanted(*changes(tmp_path, 1, SPEED), 1.3) == [4]


def test_after_a_start_workers_that_cannot_share_the_batch_ask_once_more(tmp_path):
    wanted_workers.write(tmp_path, Request(8, 2560, 130))
    found, run = changes(tmp_path, 3, SPEED)
    assert wanted(found, run, 1.3) == [2]
    found.ask(2)
    with pytest.raises(UserError, match=r"3 workers cannot share the batch of 2560.*asked for 2"):
        wanted(*changes(tmp_path, 3, SPEED), 1.3)


def test_only_the_chief_writes_the_request(tmp_path):
    found, run = changes(tmp_path, 1, SPEED)
    assert wanted(found, run, 0.6) == [2]
    found.ask(2)
    assert wanted_workers.read(tmp_path) == Request(2, 640, 60)
    other, _ = changes(tmp_path, 1, SPEED, chief=False)
    other.ask(9)
    assert wanted_workers.read(tmp_path) == Request(2, 640, 60)


def test_measured_growth_needs_shares_of_whole_micro_batches(tmp_path):
    """Its micro-batch never changes, so a worker's share has at least one of them."""
    flags = ("--anneal=measured", "--anneal_epochs=", "--micro_batch_size=64", SPEED)
    found, run = changes(tmp_path, 4, *flags)
    assert run.trajectory.micro_batch_size == 64
    assert wanted(found, run, 0) == [1]
    assert wanted(*changes(tmp_path, 4, *flags, "--plan_link_latency=0"), 0) == [2]


def test_a_plateau_is_decided_when_it_changes_the_batch(tmp_path):
    """The rest of the run then has the new batch, as far as is known."""
    flags = ("--anneal=plateau", "--anneal_epochs=", "--patience=1", "--epochs=30", SPEED)
    found, run = changes(tmp_path, 1, *flags)
    numbers = []
    for epoch in range(5):  # The accuracy improves once.
        numbers += wanted(found, run, epoch)
        run.trajectory.control.evaluated(0.5)
    assert [number for number in numbers if number] == [2, 4]
    assert run.trajectory.at(run.state.position).batch_size == 2560


def test_no_request_repeats_for_ever(tmp_path):
    """Whatever number comes, a run asks at most twice for one batch size."""
    for came, position in itertools.product(range(1, 9), (0, 0.6, 1.2)):
        folder = tmp_path / f"{came} {position}"
        folder.mkdir()
        for _ in range(3):
            found, run = changes(folder, came, SPEED)
            try:
                (number,) = wanted(found, run, position)
            except UserError:
                break
            if not number:
                break
            found.ask(number)
        else:
            pytest.fail(f"{came} workers ask for ever at {position}")
