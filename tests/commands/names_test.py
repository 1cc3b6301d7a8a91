"""A run's whole life in a folder whose name TensorFlow would take for a pattern."""

import os

import pytest

from tests.support.configs import done
from tests.support.runs import newest

NAME = "lr[0.1]\\{a,b}*? %41 é"
FLAGS = [
    "--model=tests.support.models:reshaping",
    "--train_split=train[:1000]",
    "--eval_split=test[:200]",
    "--epochs=1",
    "--micro_batch_size=128",
]


def test_a_run_lives_in_a_folder_of_any_name(tmp_path, capsys):
    run, export, page = tmp_path / NAME, tmp_path / f"export {NAME}", tmp_path / f"{NAME}.html"
    plot = tmp_path / f"{NAME}.png"

    def program(*arguments: str) -> str:
        status, out, error = done(capsys, *arguments)
        assert status == 0, error
        assert "damaged" not in out + error
        return out

    program(f"--model_dir={run}", *FLAGS, "--stop_at_epoch=0.5")
    assert "resumed at update 4" in program(f"--model_dir={run}", *FLAGS)
    evaluated = program("evaluate", f"--model_dir={run}")
    assert program("evaluate", f"--checkpoint={newest(run)}") == evaluated
    assert str(export) in program("export", f"--model_dir={run}", f"--export_dir={export}")
    for path in (export, export / "model.keras"):
        found = program("evaluate", f"--export_dir={path}")
        assert found.split("  ")[:3] == evaluated.split("  ")[:3]
    program("report", str(run), f"--output={page}", "--pictures")
    program("plan", f"--model_dir={run}", *FLAGS, f"--plot={plot}")
    for of in (f"--model_dir={run}", f"--export_dir={export}"):
        assert program("predict", of, str(plot)).startswith(f"{plot}  ")
    folders = {run, export, page, tmp_path / f"{NAME}_pictures", plot}
    assert set(tmp_path.iterdir()) == folders


@pytest.mark.parametrize("where", ["flags.txt", "lock", "result.json", "metrics.jsonl"])
def test_a_fifo_in_a_run_directory_is_named_and_nothing_hangs(tmp_path, capsys, where):
    run = tmp_path / "run"
    run.mkdir()
    if where != "flags.txt":
        (run / "flags.txt").write_text("--order_version=2\n")
    os.mkfifo(run / where)
    if where != "metrics.jsonl":
        status, _, error = done(capsys, "train", f"--model_dir={run}")
        assert status == 2
        assert "it is a FIFO, not a regular file" in error
        assert str(run / where) in error
        assert len(error.splitlines()) == 2
    if where == "flags.txt":
        for command in ("evaluate", "export"):
            status, _, error = done(capsys, command, f"--model_dir={run}")
            assert status == 2
            assert f"{run}/flags.txt cannot be read: it is a FIFO" in error
    # Reads it as it is, and has nothing to report.
    status, _, error = done(capsys, "report", str(run), f"--output={tmp_path}/x.html")
    assert status == 2
    assert "there is no run to read" in error


def test_a_device_in_a_run_directory_is_named(tmp_path, capsys):
    (tmp_path / "flags.txt").symlink_to("/dev/zero")
    status, _, error = done(capsys, "evaluate", f"--model_dir={tmp_path}")
    assert status == 2
    assert "flags.txt cannot be read: it is a device, not a regular file" in error
