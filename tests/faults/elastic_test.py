"""Runs whose number of workers follows the batch (--workers), through scripts/launch_local.py."""

import contextlib
import json
import os
import random
import re
import shutil
import signal
import time

from tests.distributed.rendezvous_test import free_ports
from tests.support.runs import points, result, started, train, wait_for
from tests.support.workers import SMOOTH, check_learned_the_same, finished, launched, workers_of
from trainer.errors import ExitStatus
from trainer.run_dir import wanted_workers
from trainer.run_dir.wanted_workers import Request

# With these costs, batches of 48, 240 and 720 are worth 1, 2 and 3 workers (cost.py).
COSTS = (
    "--plan_examples_per_second=250",
    "--plan_link_latency=30000",
    "--plan_link_bandwidth=1000",
    "--plan_change_seconds=0",
)
ELASTIC = [*SMOOTH, *COSTS]


def by_hand(count, model_dir, *flags):
    """Starts workers without a launcher; returns the chief's process when the others have ended."""
    addresses = [f"localhost:{port}" for port in free_ports(count)]
    cluster = {"cluster": {"worker": addresses}}
    tasks = [cluster | {"task": {"type": "worker", "index": index}} for index in range(count)]
    chief, *others = [
        started(
            *(model_dir, "--strategy=multi_worker", *flags),
            env=os.environ | {"TF_CONFIG": json.dumps(task)},
        )
        for task in tasks
    ]
    for other in others:
        other.communicate(timeout=120)
    return chief


def test_the_number_of_workers_follows_the_batch(one, tmp_path):
    model_dir = tmp_path / "run"
    process = launched("1:3", model_dir, *ELASTIC)
    output, errors = process.communicate(timeout=180)
    assert process.returncode == 0, output + errors
    assert re.search(r"launch_local: workers: 1 for \d+ s, 2 for \d+ s, 3 for \d+ s; \d+ ", errors)
    assert "from update 31 on, the batch is 240, and it is worth 2 workers" in output
    assert "from update 36 on, the batch is 720, and it is worth 3 workers" in output
    assert (result(model_dir)["hosts"], result(model_dir)["resumes"]) == (3, 2)
    # Their points do not tell the number of workers, so plan cannot use their times.
    assert result(model_dir)["update_seconds"] == {}
    check_learned_the_same(model_dir, one)


def test_workers_that_are_not_to_be_had_are_done_without(one, tmp_path):
    """A launcher of two workers starts no third; one that ignores the request starts two again."""
    model_dir = tmp_path / "run"
    process = launched(2, model_dir, *ELASTIC, "--workers=1:3")
    output, errors = process.communicate(timeout=180)
    assert process.returncode == 0, output + errors
    assert re.search(r"workers: 1 for \d+ s, 2 for \d+ s; ", errors)
    assert wanted_workers.read(model_dir) == Request(2, 240, 30)
    check_learned_the_same(model_dir, one)


def test_a_fixed_number_of_workers_goes_on_after_it_has_asked(one, tmp_path):
    """A Kubernetes Job that is applied unchanged does this."""
    model_dir = tmp_path / "run"
    for status in (77, 77, 0):
        output = finished(by_hand(2, model_dir, *ELASTIC, "--workers=1:3"), status)
    assert "the run asked for 3 workers for the batch of 720, and 2 workers came" in output
    check_learned_the_same(model_dir, one)


def test_one_process_cannot_change_its_number(tmp_path):
    done = train(tmp_path / "run", *ELASTIC, "--workers=1:3", status=ExitStatus.USER_ERROR)
    assert "--workers=1:3 needs a launcher that starts so many workers" in done.stderr
    assert not (tmp_path / "run").exists()


def test_decisions_by_measured_speed_are_not_deterministic(tmp_path):
    flags = ("--strategy=multi_worker", "--workers=1:3", "--deterministic")
    done = train(tmp_path / "run", *flags, status=ExitStatus.USER_ERROR)
    assert "--workers=1:3 depends on the speed that the run measures" in done.stderr


def asked_for(model_dir, workers):
    request = wanted_workers.read(model_dir)
    return request is not None and request.workers == workers


def kill_one(process, draw):
    """Kills one of the launcher's workers as soon as there is one; False if the run has ended."""
    while process.poll() is None:
        if workers := workers_of(process):
            with contextlib.suppress(ProcessLookupError):
                os.kill(draw.choice([*workers.values()]), signal.SIGKILL)
                return True
        time.sleep(0.01)
    return False


def kills(process, model_dir, draw, soon):
    """Kills a worker around each of the two changes; returns False if the run ends before."""
    # In the last updates of a phase, or as the workers leave or start.
    wait_for(lambda: [p for p in points(model_dir) if p["update"] >= 22], process)
    time.sleep(soon * draw.uniform(0, 2))
    if not kill_one(process, draw):
        return False
    wait_for(lambda: asked_for(model_dir, 3) or process.poll() is not None, process)
    time.sleep(soon * draw.uniform(0, 3))
    return kill_one(process, draw)


def killed_at_changes(model_dir, trial):
    """Starts a run of which a worker is killed around each of its changes; returns the process.

    If the machine is so fast that the run ends before a kill, another run is killed earlier.
    """
    draw, soon = random.Random(trial), 1.0
    while True:
        process = launched("1:3", model_dir, *ELASTIC, restarts=3)
        if kills(process, model_dir, draw, soon):
            return process
        process.communicate()
        shutil.rmtree(model_dir)
        soon /= 2


def test_kills_around_changes_lose_nothing(one, tmp_path, pytestconfig):
    """--change_kills=12 is the proof; the suite has one kill at each change, in one run."""
    for trial in range(0, pytestconfig.getoption("change_kills"), 2):
        model_dir = tmp_path / str(trial)
        process = killed_at_changes(model_dir, trial)
        output, errors = process.communicate(timeout=240)
        assert process.returncode == 0, output + errors
        assert result(model_dir)["hosts"] == 3
        check_learned_the_same(model_dir, one)
