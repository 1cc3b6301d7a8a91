"""A run keeps the order of examples that it began with, also one from before there were two."""

import numpy as np
import pytest

from tests.support.configs import done, parsed
from tests.support.runs import result
from trainer.commands import sweep
from trainer.distributed.process_group import ProcessGroup
from trainer.run_dir import directory
from trainer.sweep import grid
from trainer.sweep.sweep_folder import SweepFolder
from trainer.system import output
from trainer.training import run_setup

FLAGS = [
    "--model=tests.support.models:reshaping",
    "--train_split=train[:600]",
    "--eval_split=test[:200]",
    "--epochs=2",
    "--micro_batch_size=128",
]
SAID = "this run has order version 1, from its flags.txt"


def make_old(folder):
    """Takes the flag out of a flags.txt, as the version before it wrote none."""
    path = folder / "flags.txt"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    path.write_text("".join(line for line in lines if "order_version" not in line))


@pytest.fixture
def old(tmp_path, capsys):
    """A run from before, stopped in the middle."""
    folder = tmp_path / "old"
    arguments = [f"--model_dir={folder}", *FLAGS, "--order_version=1", "--stop_at_epoch=1"]
    assert done(capsys, *arguments)[0] == 0
    make_old(folder)
    return folder


def test_a_run_from_before_goes_on_is_exported_and_replayed_with_its_order(old, tmp_path, capsys):
    begun = (old / "flags.txt").read_text()
    status, _, error = done(capsys, f"--model_dir={old}", *FLAGS, "--order_version=2")
    assert status == 2
    assert "holds a run with other flags: --order_version: 1 → 2." in error
    assert (old / "flags.txt").read_text() == begun

    status, out, _ = done(capsys, f"--model_dir={old}", *FLAGS)
    assert status == 0
    assert out.count(SAID) == 1
    assert "--order_version=1\n" in (old / "flags.txt").read_text()

    replay, new = tmp_path / "replay", tmp_path / "new"
    make_old(old)
    status, out, _ = done(capsys, f"--flagfile={old}/flags.txt", f"--model_dir={replay}")
    assert "this run has order version 1, as asked for; new runs have 2" in out
    status, out, _ = done(capsys, f"--model_dir={new}", *FLAGS)
    assert "order version" not in out
    assert "--order_version=2\n" in (new / "flags.txt").read_text()
    loss = {folder: result(folder)["loss"] for folder in (old, replay, new)}
    assert loss[old] == pytest.approx(loss[replay], rel=1e-5)
    assert loss[new] != pytest.approx(loss[replay], rel=1e-4)

    assert done(capsys, "evaluate", f"--model_dir={old}")[0] == 0
    for _ in range(2):  # The second replaces the first, as one of the same run.
        assert done(capsys, "export", f"--model_dir={old}")[0] == 0
        assert "--order_version=1\n" in (old / "export" / "flags.txt").read_text()
        make_old(old / "export")


def test_a_sweep_from_before_goes_on_each_point_with_its_own_order(tmp_path):
    points = grid.parse("seed=0,1")
    asked = parsed(*FLAGS, "--seed=0")
    folder = tmp_path / grid.folder(points[0])
    folder.mkdir()
    directory.keep_flags(folder, directory.flagfile_in(folder, asked))
    make_old(folder)
    runs, wrong, _ = sweep.checked(parsed(*FLAGS), points, SweepFolder(tmp_path))
    assert not wrong
    assert not any("order_version" in flag for run in runs for flag in run.flags)
    runs, wrong, _ = sweep.checked(
        parsed(*FLAGS, "--order_version=2"), points, SweepFolder(tmp_path)
    )
    (message,) = wrong
    assert "--order_version: 1 → 2" in message
    assert [run.point for run in runs] == points[1:]


def test_all_workers_have_the_order_that_the_chief_reads(tmp_path, logged):
    asked, sent = parsed(*FLAGS), []
    directory.keep_flags(tmp_path, directory.flagfile_in(tmp_path, asked))
    make_old(tmp_path)

    def from_the_chief(values: np.ndarray) -> np.ndarray:
        sent.append(values)
        return sent[0]

    for index, folder in enumerate((tmp_path, tmp_path / "none")):
        group = ProcessGroup(index, 2, from_the_chief)
        with output.log_as(chief=group.chief):
            assert run_setup._with_order_version(asked, folder, group).order_version == 1
    assert logged == [f"{SAID}; new runs have 2"]
