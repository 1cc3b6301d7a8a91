"""Sweeps in buckets: several machines, lost machines, and buckets that do not answer."""

import json
import os
import signal
import threading
import time

import pytest

from tests.commands.report_test import report
from tests.commands.sweep_test import DIVERGES, GOOD, NAMES, TINY, WRONG
from tests.faults.bucket_test import at_copy
from tests.support import runs
from tests.support.configs import done
from trainer.buckets import lease
from trainer.buckets.subfolder import Subfolder
from trainer.buckets.url import parse
from trainer.main import main
from trainer.run_dir import manifest
from trainer.run_dir.bucket_connection import local_folder
from trainer.sweep import grid, outcomes
from trainer.sweep.bucket_folder import BucketSweepFolder
from trainer.sweep.shared_outcomes import SharedOutcomes

# What sweep.json holds is tested on both services elsewhere; a sweep takes seconds.
GOOGLE = pytest.mark.parametrize("bucket_server", ["gs"], indirect=True)
S3 = pytest.mark.parametrize("bucket_server", ["s3"], indirect=True)
MIXED = f"--sweep=model/base_learning_rate={WRONG},{DIVERGES},{GOOD};seed=0"
SHORT = [*TINY, "--worker_timeout=2"]


def flags(tmp_path, machine, *more):
    return [*SHORT, f"--cache_dir={tmp_path / machine}", *more]


def start(place, tmp_path, machine, *more):
    return runs.started(place.url, *flags(tmp_path, machine, *more), name="sweep")


def sweep(place, tmp_path, machine, *more, status=0):
    return runs.train(place.url, *flags(tmp_path, machine, *more), name="sweep", status=status)


def ends(place):
    """The exit status of each point in the bucket, by folder."""
    found = SharedOutcomes(place.connect(), place.url).read().outcomes()
    return {name: end.status for name, end in found.items()}


def table(done):
    """The table of points that a sweep printed."""
    return done.stdout.partition("\n\n")[2]


def run_of(place, tmp_path, machine, name):
    """The local directory of a point's run."""
    return local_folder(parse(f"{place.url}/{name}"), str(tmp_path / machine))


def has_checkpoint(place, name):
    state = manifest.newest(Subfolder(place.connect(), name), f"{place.url}/{name}")
    return state and any(path.startswith("checkpoints/") for path in state.files)


@S3
def test_a_sweep_is_the_same_on_each_machine(place, tmp_path, capsys):
    """One point is wrong only when it trains, one diverges, and one ends."""
    first = sweep(place, tmp_path, "first", MIXED, "--sweep_parallel=2", status=2)
    assert [*ends(place).values()] == [2, 3, 0]
    second = sweep(place, tmp_path, "second", MIXED, status=2)
    assert "1 of 3 points are finished" in second.stdout
    assert second.stdout.count("failed before") == 2
    assert "starts" not in second.stdout
    assert table(second) == table(first)
    assert "no function 'nothing'" in table(second)
    again = sweep(place, tmp_path, "second", MIXED, "--sweep_retry", status=2)
    assert [line.split(": ")[0] for line in again.stdout.splitlines() if "starts" in line] == [
        f"[1/3] {NAMES[0]}",
        f"[2/3] {NAMES[1]}",
    ]
    assert [*ends(place).values()] == [2, 3, 0]
    check_refusals(place, tmp_path, capsys)
    check_copy(place, tmp_path, capsys)
    # A run that was deleted does not count as finished, although this machine has its result.
    for name in place.connect().names(f"{NAMES[2]}/"):
        place.connect().delete(name)
    folder = BucketSweepFolder(
        parse(place.url), str(tmp_path / "second"), grid.parse(MIXED.removeprefix("--sweep="))
    )
    assert not (folder.path / NAMES[2] / "result.json").exists()


def check_refusals(place, tmp_path, capsys):
    """Flags that differ, and the folder of a run, are refused before anything starts."""
    cache = f"--cache_dir={tmp_path}/third"
    other = [*SHORT, MIXED, cache, "--precision=float32", "--epochs=2"]
    status, _, error = done(capsys, "sweep", *other, f"--model_dir={place.url}")
    assert status == 2
    assert "2 of 3 points are wrong; nothing was started" in error
    assert f"--model_dir={place.url}/{NAMES[2]} holds a run with other flags" in error
    run = f"--model_dir={place.url}/{NAMES[2]}"
    status, _, error = done(capsys, "sweep", "--sweep=seed=0", cache, run)
    assert status == 2
    assert "exists and is not the folder of a sweep: name a new folder, or that of" in error
    long = f"--model_dir={place.url}/{'x' * (695 - len(place.folder))}"
    status, _, error = done(capsys, "sweep", "--sweep=seed=0", cache, long)
    assert status == 2
    assert "has the point seed=0, whose URL has a path of more than 700 bytes" in error


def check_copy(place, tmp_path, capsys):
    """Checks copies of the sweep, the reports of the URL and of the copy, and the table's rows."""
    copy = tmp_path / "copy"
    for _ in range(2):
        assert main(["crescendo", "fetch", f"--model_dir={place.url}", f"--local_dir={copy}"]) == 0
        assert f"{copy} has the sweep {place.url}: 2 runs" in capsys.readouterr().out
        rows = [path.parts[-4] for path in copy.glob("*/tensorboard/hparams/events*")]
        assert sorted(rows) == sorted(NAMES)
    kept = json.loads((copy / "sweep.json").read_text())["points"]
    assert [point["status"] for point in kept] == [2, 3, 0]
    for source in (place.url, copy, place.url.rpartition("/")[0]):
        page, out, _ = report(capsys, tmp_path, source, f"--cache_dir={tmp_path}/third")
        assert ": 3 runs, " in out
        assert any("no function 'nothing'" in cell for cell in page.cells)
    (copy / NAMES[2] / "lock").touch()
    assert main(["crescendo", "fetch", f"--model_dir={place.url}", f"--local_dir={copy}"]) == 2
    assert f"{copy}/{NAMES[2]} was trained after it was fetched" in capsys.readouterr().err


@GOOGLE
def test_two_machines_train_each_point_once(place, tmp_path):
    together, arrived = threading.Barrier(2), []

    def rule(request):  # Both machines take the lease of the first point at the same moment.
        if request.writes and request.path.endswith("tiny,base_learning_rate=0.1/lease.json"):
            arrived.append(request)
            if len(arrived) <= 2:
                together.wait(60)

    place.proxy.rule = rule
    points = f"--sweep=model/base_learning_rate={GOOD},{WRONG},{GOOD.replace('0.1', '0.05')}"
    both = [start(place, tmp_path, name, points) for name in ("first", "second")]
    said = [each.communicate(timeout=300) for each in both]
    assert [each.returncode for each in both] == [2, 2], said
    assert all(
        "[1/3] model=tests.support.models-tiny,base_learning_rate=0.1: starts" in out
        for out, _ in said
    )
    assert sum("waiting for another process that trains it" in out for out, _ in said) >= 1
    outputs = [path.read_text() for path in tmp_path.rglob("output.txt")]
    assert sum(text.count("loading TensorFlow") for text in outputs) == 3
    assert [*ends(place).values()] == [0, 2, 0]
    tables = [out.partition("\n\n")[2] for out, _ in said]
    assert tables[0] == tables[1]


@GOOGLE
def test_the_training_of_a_killed_sweep_stops_with_a_checkpoint(place, tmp_path):
    """The kernel tells the training once for each thread of the sweep."""
    first = start(place, tmp_path, "first", "--epochs=500", "--sweep=seed=0")
    output = local_folder(parse(place.url), str(tmp_path / "first")) / "seed=0/output.txt"
    runs.wait_for(lambda: output.exists() and "epoch   1" in output.read_text(), first)
    os.kill(first.pid, signal.SIGKILL)  # It alone.
    first.communicate()
    for _ in range(100):
        if "stopped, with a checkpoint" in output.read_text():
            break
        time.sleep(0.1)
    else:
        pytest.fail(output.read_text())


@S3
def test_another_machine_takes_over_the_points_of_a_killed_one(place, tmp_path, uninterrupted):
    # A point prints to a file, so it cannot be held. With 170 evaluations it trains for four
    # seconds, and the first copy begins at most a second after a checkpoint.
    often = [runs.OFTEN, "--eval_every_epochs=0.001"]
    more = [*runs.SHORT, *often, "--worker_timeout=2", "--sweep=seed=0"]
    first = start(place, tmp_path, "first", *more)
    killed = []

    def kill_all():
        killed.extend(_descendants(first.pid))
        for process in [first.pid, *killed]:
            os.kill(process, signal.SIGKILL)

    at_copy(place, first, kill_all)
    first.communicate()
    assert killed
    second = sweep(place, tmp_path, "second", *more)
    assert "[1/1] seed=0: waiting for another process that trains it" in second.stdout
    assert "[1/1] seed=0: resumes" in second.stdout
    assert ends(place) == {"seed=0": 0}
    run = run_of(place, tmp_path, "second", "seed=0")
    assert runs.digest(run) == runs.digest(uninterrupted[0])
    updates = [point["update"] for point in runs.points(run, "eval")]
    assert updates == sorted(set(updates))


def _descendants(pid):
    """Process ids of all processes below `pid`."""
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        children = [int(each) for each in file.read().split()]
    return children + [each for child in children for each in _descendants(child)]


@GOOGLE
def test_a_signal_stops_the_points_with_checkpoints_in_the_bucket(place, tmp_path):
    first = start(place, tmp_path, "first", runs.OFTEN, "--epochs=500", "--sweep=seed=0,1")
    runs.wait_for(lambda: has_checkpoint(place, "seed=0"), first)
    first.send_signal(signal.SIGTERM)
    output, errors = first.communicate(timeout=30)
    assert first.returncode == 75, output + errors
    assert ends(place) == {"seed=0": 75, "seed=1": None}
    assert not lease.read(Subfolder(place.connect(), "seed=0"))[0].held
    assert "seed=1: starts" not in output


@S3
def test_outcomes_are_recorded_when_the_bucket_answers_again(place, tmp_path):
    """The sweep has the precision that another machine chose."""
    points = grid.parse("seed=0")
    SharedOutcomes(place.connect(), place.url).begin(points, "bfloat16")
    auto = ["--nodeterministic", "--precision=auto", "--micro_batch_size=128", "--sweep=seed=0"]
    process = start(place, tmp_path, "first", *auto)
    runs.wait_for(lambda: lease.read(Subfolder(place.connect(), "seed=0")), process)
    away = f"{place.folder}/sweep.json"
    place.proxy.rule = lambda request: 403 if request.path.endswith(away) else None
    run = run_of(place, tmp_path, "first", "seed=0")
    runs.wait_for((run / "result.json").exists, process)
    own = local_folder(parse(place.url), str(tmp_path / "first"))
    runs.wait_for(lambda: outcomes.read(own)["seed=0"].status == 0, process)
    time.sleep(1)
    assert process.poll() is None
    place.proxy.rule = lambda request: None
    output, errors = process.communicate(timeout=60)
    assert process.returncode == 0, output + errors
    reason = "because the sweep began with this precision"
    assert f"new points compute in bfloat16, {reason}" in output
    assert "--precision=bfloat16" in (run / "flags.txt").read_text().splitlines()
    assert f"{place.url}/sweep.json is not up to date: 403 Forbidden" in output
    assert f"{place.url}/sweep.json is up to date again" in output
    assert ends(place) == {"seed=0": 0}
