"""Run directories that are whole files each, and odd together: what a second reader found."""

import io
import json
import math
import os
import re
import subprocess
import time

import pytest

from tests.support.configs import done
from tests.support.run_directories import write
from trainer.reports import run_record
from trainer.sweep import grid, outcomes, runner


def report(capsys, folder):
    """Returns the messages and the page."""
    page = folder.parent / "report.html"
    status, _, error = done(capsys, "report", str(folder), f"--output={page}")
    assert status == 0, error
    return error, page.read_text(encoding="utf-8")


def change_result(folder, **values):
    file = folder / "result.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


@pytest.mark.parametrize("odd", ["a", "b"])
def test_results_of_no_updates_in_no_time(capsys, tmp_path, odd):
    runs = tmp_path / "runs"
    write(runs / "a")
    write(runs / "b", "--initial_batch_size=64")
    change_result(runs / odd, updates=0, seconds=0)
    error, _ = report(capsys, runs)
    assert "metrics.jsonl goes on to update 20: the result is of update 0" in error


def range_test(folder, change=lambda point: None, *flags):
    write(folder, "--anneal=range_test")
    kept = (folder / "flags.txt").read_text() + "".join(f"{flag}\n" for flag in flags)
    (folder / "flags.txt").write_text(kept)
    points = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for point in points:
        point["learning_rate"] *= point["update"]
        change(point)
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(p)}\n" for p in points))


def test_range_tests_without_numbers_are_not_drawn(capsys, tmp_path):
    runs = tmp_path / "runs"
    range_test(runs / "whole")
    range_test(runs / "still", lambda point: point.update(learning_rate=0.1))
    range_test(runs / "scale", lambda point: None, "--range_scale=foo")
    for name in ("learning_rate", "top1", "loss"):
        range_test(runs / f"no_{name}", lambda point, name=name: point.pop(name))
    for loss in (math.nan, math.inf):
        range_test(runs / f"loss_{loss}", lambda point, loss=loss: point.update(loss=loss))
    _, page = report(capsys, runs)
    drawn = re.findall("against a rising learning rate, in ([a-z_]+)[.]", page)
    assert {*drawn} == {"whole", "scale"}


def test_points_without_an_epoch_are_named(capsys, tmp_path):
    folder = write(tmp_path / "runs" / "a", ended=False)
    write(tmp_path / "runs" / "b")
    log = folder / "metrics.jsonl"
    log.write_text(log.read_text().replace('"epoch"', '"of_another_version"'))
    error, _ = report(capsys, tmp_path / "runs")
    assert "a: metrics.jsonl has 22 points without an epoch, which are left out" in error


def test_names_that_are_not_utf8(capsys, tmp_path):
    write(tmp_path / "runs" / os.fsdecode(b"caf\xe9"))
    write(tmp_path / "runs" / "b", "--initial_batch_size=64")
    _, page = report(capsys, tmp_path / "runs")
    assert "caf\ufffd" in page


def test_folders_in_folders(tmp_path):
    write(tmp_path / "run")
    here = os.open(tmp_path, os.O_PATH)
    try:
        for _ in range(1500):
            os.mkdir("d", dir_fd=here)
            inner = os.open("d", os.O_PATH, dir_fd=here)
            os.close(here)
            here = inner
    finally:
        os.close(here)
    found = run_record.find([tmp_path])
    # Python's rmtree is recursive: pytest, which removes old folders, would end with status 4.
    subprocess.run(["rm", "-r", tmp_path / "d"], check=True)
    assert found == ([tmp_path / "run"], {})


def test_a_sweep_of_3000_failed_points_is_read_once(tmp_path):
    points = grid.parse(f"seed={','.join(map(str, range(3000)))}")
    outcomes.begin(tmp_path, points)
    kept = json.loads((tmp_path / "sweep.json").read_text())
    for entry in kept["points"]:
        entry |= {"status": 1, "reason": "lost"}
        (tmp_path / entry["folder"]).mkdir()
    (tmp_path / "sweep.json").write_text(json.dumps(kept))
    start = time.monotonic()
    folders, _ = run_record.find([tmp_path])
    assert {run_record.read(folder, "x").state for folder in folders} == {"failed"}
    assert len(folders) == 3000
    assert time.monotonic() - start < 10  # 180 s when each point read it.
    outcomes.record_outcome(tmp_path, points[0], outcomes.Outcome(0))
    assert not outcomes.read(tmp_path)["seed=0"].failed


def test_reasons_are_short():
    """Records long reasons: 1,000 of 20,000 letters made sweep.json too large."""
    output = io.BytesIO(b"crescendo train: " + b"x" * 20_000 + b"\n" + b"y" * 20_000 + b"\n")
    assert len(runner._reason(output, 0)) < 2010
