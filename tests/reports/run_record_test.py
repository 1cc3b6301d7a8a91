import contextlib
import os
import pathlib
import socket
import tempfile

import pytest

from tests.support.run_directories import write
from trainer.reports import run_record
from trainer.run_dir import directory, lineage
from trainer.run_dir.lineage import Lineage
from trainer.sweep import grid, outcomes


def test_find_returns_the_runs_below_a_folder(tmp_path):
    for name in ("batch_128", "batch_32", "deep/er/a"):
        write(tmp_path / "sweep" / name)
    (tmp_path / "sweep" / "notes.txt").write_text("no run")
    (tmp_path / "sweep" / "empty").mkdir()
    export = write(tmp_path / "sweep" / "export")
    (export / "export.json").write_text("{}")
    paths = [tmp_path / "sweep" / "deep" / "er" / "a", tmp_path / "sweep", tmp_path / "none"]
    found, without = run_record.find(paths)
    assert run_record.names(found) == ["deep/er/a", "batch_32", "batch_128"]
    assert without == {tmp_path / "none": "holds no run"}


@contextlib.contextmanager
def unprivileged():
    """Drops the rights of root, which ignores the mode of a folder."""
    if root := os.geteuid() == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_folder_that_cannot_be_read_is_named():
    with tempfile.TemporaryDirectory() as name:  # Only root may enter pytest's folders.
        runs = pathlib.Path(name)
        runs.chmod(0o755)
        write(runs / "a")
        write(runs / "closed" / "b")
        (runs / "closed").chmod(0o000)
        with unprivileged():
            found, left_out = run_record.find([runs])
        (runs / "closed").chmod(0o755)
    assert found == [runs / "a"]
    assert left_out == {runs / "closed": "cannot be read: Permission denied"}


def test_the_runs_of_a_sweep_keep_the_order_of_its_grid(tmp_path):
    points = grid.parse("seed=0,1;augment=none,medium")
    outcomes.begin(tmp_path, points)
    folders = [write(tmp_path / grid.folder(point)) for point in points]
    other = write(tmp_path / "a")
    assert run_record.find([tmp_path])[0] == [*folders, other]
    (tmp_path / "sweep.json").write_text("{")
    assert run_record.find([tmp_path])[0] == [other, *map(folders.__getitem__, (1, 0, 3, 2))]


def test_find_does_not_descend_into_a_run(tmp_path):
    write(tmp_path / "run")
    write(tmp_path / "run" / "inner")
    assert run_record.find([tmp_path])[0] == [tmp_path / "run"]


def test_a_finished_run_is_read_without_notes(tmp_path):
    run = run_record.read(write(tmp_path / "run", "--seed=3", "--epochs=4"), "run")
    assert run.state == "finished"
    assert run.notes == []
    assert run.flags["seed"] == "3"
    assert run.flags["epochs"] == "4.0"
    assert "model_dir" not in run.flags
    assert [point["update"] for point in run.points_of("eval")] == [10, 20]
    assert run.result["top1"] == 0.8


def _cut(folder):
    text = (folder / "metrics.jsonl").read_text()
    (folder / "metrics.jsonl").write_text(text[: len(text) // 2])


def _garbled(folder):
    (folder / "metrics.jsonl").write_bytes(os.urandom(999) + b"\n{}\n")


def _a_folder_instead(name):
    def damage(folder):
        (folder / name).unlink()
        (folder / name).mkdir()

    return damage


def _without(name):
    return lambda folder: (folder / name).unlink()


def _holding(name, content):
    return lambda folder: (folder / name).write_text(content)


_NAN = '{"top1": 1, "updates": 3, "loss": NaN, "seconds": 9}'


@pytest.mark.parametrize(
    ("damage", "note", "state"),
    [
        (_cut, "metrics.jsonl ends at update 10 of 20", "finished"),
        (_garbled, "damaged and left out", "finished"),
        (_without("metrics.jsonl"), "metrics.jsonl is missing", "finished"),
        (
            _a_folder_instead("metrics.jsonl"),
            "metrics.jsonl cannot be read: it is",
            "finished",
        ),
        (_without("flags.txt"), "flags.txt is missing", "finished"),
        (_holding("flags.txt", "PK\x00\x01"), "flags.txt is damaged", "finished"),
        (_a_folder_instead("flags.txt"), "flags.txt cannot be read: it is a folder", "finished"),
        (_holding("result.json", '{"top1": 0.'), "result.json is damaged", "not finished"),
        (_holding("result.json", '{"top1": 1, "updates": 3}'), "result.json is", "not finished"),
        (_holding("result.json", _NAN), "result.json is", "not finished"),
        (
            _a_folder_instead("result.json"),
            "result.json cannot be read: it is a",
            "not finished",
        ),
    ],
)
def test_damaged_files_are_noted(tmp_path, damage, note, state):
    folder = write(tmp_path / "run")
    damage(folder)
    run = run_record.read(folder, "run")
    (found,) = run.notes
    assert note in found
    assert run.state == state


def test_the_state_of_unfinished_runs_follows_the_lock(tmp_path):
    folder = write(tmp_path / "run", ended=False)
    assert run_record.read(folder, "run").state == "not finished"
    lock = folder / "lock"
    with directory.lock_run_dir(folder, (folder / "flags.txt").read_text()):
        assert run_record.read(folder, "run").state == "running"
    # Another process may have this number by now.
    lock.write_text(f"process {os.getpid()} on {socket.gethostname()}\n")
    assert run_record.read(folder, "run").state == "killed"
    lock.write_text("process 1 on elsewhere\n")
    run = run_record.read(folder, "run")
    assert run.state == "not finished"
    assert run.notes == ["process 1 on elsewhere is training this run, or was killed"]
    (folder / "diverged.txt").write_text("the loss is nan at update 3.\nLower it.\n")
    run = run_record.read(folder, "run")
    assert (run.state, run.notes) == ("diverged", ["the loss is nan at update 3."])


def test_names_are_relative_to_the_common_parent():
    assert run_record.names([pathlib.Path("/a/b/c")]) == ["c"]
    assert run_record.names([pathlib.Path("/a/b/c"), pathlib.Path("/a/d")]) == ["b/c", "d"]


def test_failed_points_of_a_sweep_have_the_reason_as_a_note(tmp_path):
    points = [{"seed": "0"}, {"seed": "1"}, {"seed": "2"}]
    outcomes.begin(tmp_path / "sweep", points)
    # Point 0 failed while training, point 1 before it wrote flags.txt; point 2 was stopped.
    for point, status in zip(points, (1, 2, 75), strict=True):
        outcomes.record_outcome(
            tmp_path / "sweep", point, outcomes.Outcome(status, f"said {status}\nand more")
        )
    write(tmp_path / "sweep" / "seed=0", ended=False)
    (tmp_path / "sweep" / "seed=1").mkdir()
    write(tmp_path / "sweep" / "seed=2", ended=False)
    found, _ = run_record.find([tmp_path / "sweep"])
    runs = [run_record.read(path, path.name) for path in found]
    assert [(run.name, run.state, run.notes) for run in runs] == [
        ("seed=0", "failed", ["said 1 and more"]),
        ("seed=1", "failed", ["said 2 and more"]),
        ("seed=2", "not finished", []),
    ]
    assert (len(runs[0].points), runs[1].points) == (22, [])


def test_a_fork_begins_at_the_last_evaluation_of_its_parent(tmp_path):
    setting = {"batch_size": 100, "learning_rate": 0.1, "momentum": 0.9, "noise_scale": 10.0}
    point = {"split": "eval", "update": 4, "position": 400, "epoch": 0.4, "time": 1.6e9}
    before = {"eval": {**point, "top1": 0.3, "loss": 2.0}}
    found = Lineage("a@5", "/a", 5, 500, 0.5, [], setting, setting, before)
    for name, more in (("on", []), ("anew", ["--fork_position=0"])):
        write(tmp_path / name, "--fork_from=a@5", *more)
        lineage.write(tmp_path / name, found)
    on, anew = (run_record.read(tmp_path / name, name) for name in ("on", "anew"))
    assert on.evaluations[0]["top1"] == 0.3
    assert on.evaluations[1:] == anew.evaluations
    assert on.begin == {"epoch": 0.5, "update": 5}
    assert anew.begin == {"epoch": 0, "update": 0}
    assert on.notes[0].startswith("begins with /a at update 5, epoch 0.50: batch size 100, ")
    write(tmp_path / "other")  # A fork was killed here before its flags were written.
    lineage.write(tmp_path / "other", found)
    assert run_record.read(tmp_path / "other", "other").begin == {"epoch": 0, "update": 0}
    (tmp_path / "on" / lineage.FILE).write_text("{")
    damaged = run_record.read(tmp_path / "on", "on")
    assert damaged.evaluations == anew.evaluations
    assert "forked_from.json" in damaged.notes[0]
