"""trainer.train on flags alone: results, points, stops, and several runs in one process."""

import concurrent.futures
import json
import os
import signal
import subprocess
import sys
import threading

import pytest

import trainer
from tests.support import runs
from tests.support.python_runs import FLAGS
from tests.support.runs import digest, points, result
from trainer.run_dir.metrics import read

TINY = {
    "model": "tests.support.models:tiny",
    "train_split": "train[:1000]",
    "eval_split": "test[:200]",
    "epochs": 2,
    "initial_batch_size": 64,
    "max_batch_size": 128,
    "anneal": "step",
    "anneal_epochs": ["50%"],
    "micro_batch_size": 64,
    "anneal_factor": 2,
    "anneal_with": "batch_size",
    "log_every_updates": 5,
    "precision": "float32",
}
# One epoch of one batch size.
ONE_SIZE = TINY | {"epochs": 1, "max_batch_size": 64, "anneal": "constant", "anneal_epochs": None}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A finished run: its directory, its result and the points that on_log received."""
    folder, found = tmp_path_factory.mktemp("api") / "run", []
    return folder, trainer.train(folder, on_log=found.append, **TINY), found


def test_the_result_is_that_of_result_json(trained):
    folder, found, _ = trained
    assert json.loads(json.dumps(found)) == result(folder)
    assert found["epochs"] >= 2


def test_on_log_gets_every_point_in_order(trained):
    folder, _, found = trained
    assert found == read(folder / "metrics.jsonl")
    assert {point["split"] for point in found} == {"train", "eval"}


def test_a_finished_run_returns_its_result_again(trained):
    folder, found, _ = trained
    more = []
    again = trainer.train(folder, on_log=more.append, **TINY)
    assert again["parameters_sha256"] == found["parameters_sha256"]
    assert more == []


def test_a_stop_at_an_epoch_is_returned_and_the_next_call_resumes(tmp_path, trained):
    first, second = [], []
    stopped = trainer.train(tmp_path / "run", on_log=first.append, stop_at_epoch=1, **TINY)
    assert stopped == trainer.Stopped(str(tmp_path / "run"), "epoch")
    found = trainer.train(tmp_path / "run", on_log=second.append, **TINY)
    assert found["resumes"] == 1
    assert found["updates"] == trained[1]["updates"]
    # Only new points are passed on.
    assert [*first, *second] == read(tmp_path / "run" / "metrics.jsonl")


@pytest.mark.parametrize("error", [KeyError, SystemExit])
def test_an_error_in_on_log_ends_the_run_with_a_checkpoint(tmp_path, error):
    threads, calls = [], []

    def fail(point):
        threads.append(threading.current_thread())
        calls.append(point.pop("update"))
        raise error("mine")

    with pytest.raises(error, match="mine"):
        trainer.train(tmp_path / "run", on_log=fail, **TINY)
    assert threads == [threading.main_thread()]
    assert [int(path.stem) for path in runs.checkpoints(tmp_path / "run")] == calls == [5]


def test_ctrl_c_saves_and_returns_and_the_handler_is_restored(tmp_path):
    before = signal.getsignal(signal.SIGINT)
    outer = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(outer)
    stopped = trainer.train(
        tmp_path / "run", on_log=lambda _: os.kill(os.getpid(), signal.SIGINT), **TINY
    )
    assert stopped == trainer.Stopped(str(tmp_path / "run"), "signal")
    assert runs.newest(tmp_path / "run") is not None
    assert signal.getsignal(signal.SIGINT) is before
    assert signal.set_wakeup_fd(outer) == outer


def test_ctrl_c_after_the_last_update_reaches_the_caller(tmp_path):
    def late(point):
        if point["split"] == "eval" and point["epoch"] >= 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        trainer.train(tmp_path / "run", on_log=late, **ONE_SIZE)
    assert runs.result(tmp_path / "run")["epochs"] >= 1


def test_ctrl_c_before_the_training_is_a_keyboard_interrupt(tmp_path):
    # The code of the user's model runs before the first update.
    code = tmp_path / "interrupted.py"
    code.write_text("import os, signal\ndef net(*_): os.kill(os.getpid(), signal.SIGINT)\n")
    sys.path.insert(0, str(tmp_path))
    with pytest.raises(KeyboardInterrupt):
        trainer.train(tmp_path / "run", **TINY | {"model": "interrupted:net"})
    sys.path.remove(str(tmp_path))


def test_a_loss_that_is_not_finite_is_raised(tmp_path, capsys):
    with pytest.raises(trainer.NonFiniteLossError, match="update"):
        trainer.train(tmp_path / "run", base_learning_rate=1e30, **TINY)
    assert (tmp_path / "run" / "diverged.txt").exists()
    assert "crescendo train: " not in capsys.readouterr().err  # The caller gets the error.


def test_wrong_data_are_named(tmp_path):
    with pytest.raises(trainer.UserError, match="fashion_mnits"):
        trainer.train(tmp_path / "run", dataset="fashion_mnits")


def test_a_run_in_another_thread_trains_and_a_second_one_with_other_devices_is_refused(
    tmp_path, trained
):
    folder, _, _ = trained
    trainer.train(folder, **TINY)  # The run is finished, so that TensorFlow is not set up for it.
    with concurrent.futures.ThreadPoolExecutor(1) as thread:
        found = thread.submit(
            trainer.train, tmp_path / "run", **ONE_SIZE | {"epochs": 0.5}
        ).result()
    assert found["epochs"] >= 0.5
    for name, value in (("virtual_devices", 2), ("deterministic", True), ("strategy", "mirrored")):
        with pytest.raises(trainer.UserError, match=f"asks for {name}=.*\nStart Python again"):
            trainer.train(tmp_path / "other", **TINY, **{name: value})


def test_runs_in_one_process_equal_runs_in_their_own(tmp_path):
    command = [sys.executable, "-m", "tests.support.python_runs", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert result(tmp_path / "source")["updates"] == 10
    words = [f"--{name}={value}" for name, value in FLAGS.items() if name != "deterministic"]
    runs.train(tmp_path / "alone", *words, "--deterministic", "--seed=1")
    assert digest(tmp_path / "1") == digest(tmp_path / "alone") != digest(tmp_path / "0")
    assert points(tmp_path / "1") == points(tmp_path / "alone")
    assert kept_flags(tmp_path / "1") == kept_flags(tmp_path / "alone")


def kept_flags(folder):
    lines = (folder / "flags.txt").read_text().splitlines()
    return [line for line in lines if not line.startswith("--model_dir=")]
