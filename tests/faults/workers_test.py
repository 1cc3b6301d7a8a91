"""Runs of several processes, one replica each, through scripts/launch_local.sh."""

import json
import os
import re
import signal
import time

import pytest

from tests.distributed.rendezvous_test import free_ports
from tests.support.runs import (
    OFTEN,
    checkpoints,
    digest,
    newest,
    points,
    result,
    started,
    train,
    wait_for,
)
from tests.support.workers import (
    LINEAR,
    SCRIPT,
    SMOOTH,
    check_learned_the_same,
    finished,
    launched,
    workers_of,
)
from trainer.run_dir.metrics import read

# After LINEAR: updates enough to be interrupted.
LONG = [
    "--epochs=400",
    "--eval_every_epochs=400",
    "--anneal=constant",
    "--anneal_epochs=",
    "--log_every_updates=50",
    OFTEN,
]
MEASURED = ["--nodeterministic", "--micro_batch_size=0"]


@pytest.fixture(scope="module")
def changing(tmp_path_factory):
    """A run of one, three, two and one workers: its directory, and the output of the three and two.

    The two start by the script, each with imports of its own.
    """
    model_dir = tmp_path_factory.mktemp("changing") / "run"
    train(model_dir, *SMOOTH, "--stop_at_epoch=0.6")
    starts = ((3, 1.4, SCRIPT), (2, 2.4, ("scripts/launch_local.sh",)))
    outputs = [
        finished(launched(n, model_dir, *SMOOTH, f"--stop_at_epoch={until}", script=script))
        for n, until, script in starts
    ]
    train(model_dir, *SMOOTH)
    return model_dir, outputs


def test_one_three_two_one_workers(one, changing):
    """Resumes with other numbers of workers, with a growth under three and under two."""
    model_dir, outputs = changing
    for output in outputs:
        # The chief alone speaks.
        assert {line[:4] for line in output.splitlines() if "epoch" in line} == {"[0] "}
    assert result(model_dir)["resumes"] == 3
    check_learned_the_same(model_dir, one)


def test_a_finished_run_says_so_to_all(changing):
    model_dir, _ = changing
    kept = read(model_dir / "metrics.jsonl"), digest(model_dir)
    output = finished(launched(2, model_dir, *SMOOTH))
    assert "is finished" in output
    assert (read(model_dir / "metrics.jsonl"), digest(model_dir)) == kept
    # A chief that was content with itself would leave the others to wait for it for ever.
    addresses = [f"localhost:{port}" for port in free_ports(2)]
    task = {"cluster": {"worker": addresses}, "task": {"type": "worker", "index": 0}}
    flags = [*SMOOTH, "--strategy=multi_worker", "--worker_timeout=1"]
    process = started(model_dir, *flags, env=os.environ | {"TF_CONFIG": json.dumps(task)})
    assert "is finished" in finished(process, 76)


@pytest.mark.parametrize("index", [0, 1])
def test_a_signal_to_one_stops_all(tmp_path, index):
    model_dir = tmp_path / "run"
    process = launched(2, model_dir, *LINEAR, *LONG)
    wait_for(lambda: points(model_dir), process)
    os.kill(workers_of(process)[index], signal.SIGTERM)
    assert "stopped, with a checkpoint" in finished(process, 75)
    updates = [point["update"] for point in points(model_dir)]
    assert updates[-1] <= int(newest(model_dir).stem)
    assert len(checkpoints(model_dir)) <= 4


def test_workers_stop_with_a_checkpoint_where_their_launcher_is_killed(tmp_path):
    model_dir = tmp_path / "run"
    process = launched(2, model_dir, *LINEAR, "--epochs=400", "--eval_every_epochs=400")
    wait_for(lambda: points(model_dir), process)
    workers = workers_of(process)
    process.kill()
    process.communicate()
    end = time.monotonic() + 60
    while any(os.path.exists(f"/proc/{worker}") for worker in workers.values()):
        assert time.monotonic() < end
        time.sleep(0.1)
    assert points(model_dir)[-1]["update"] <= int(newest(model_dir).stem)
    assert not (model_dir / "result.json").exists()


def test_a_worker_that_dies_or_hangs_ends_all_and_all_start_again(tmp_path):
    """The chief dies, and when all have started again, the other worker hangs."""
    model_dir = tmp_path / "run"
    flags = [*LINEAR, *LONG, *MEASURED, "--worker_timeout=8"]
    process = launched(2, model_dir, *flags, restarts=2, patience=5)
    wait_for(lambda: newest(model_dir), process)
    for sent, index in ((signal.SIGKILL, 0), (signal.SIGSTOP, 1)):
        workers = workers_of(process)
        os.kill(workers[index], sent)
        start = time.monotonic()
        wait_for(lambda pid=workers[1 - index]: pid not in workers_of(process).values(), process)
        assert time.monotonic() - start < 8
        lost = newest(model_dir)
        wait_for(lambda lost=lost: int(newest(model_dir).stem) > int(lost.stem), process)
    process.terminate()
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 75, output + errors
    for index, left in ((0, 1), (1, 0)):
        assert re.search(
            rf"\[{left}\] crescendo train: worker {left} \(.*\) has lost worker {index} \(",
            output,
        )
        assert f"launch_local: start {2 + index}" in errors
        # One that hangs is killed by the launcher.
        assert f"launch_local: signal 9 (Killed) has ended worker {index}" in errors
    first, second = map(int, re.findall(r"\[0\] resumed at update (\d+)", output))
    assert first < second
