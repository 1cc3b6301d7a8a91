"""Whole runs of the program on Fashion-MNIST, in processes of their own, and what they leave."""

import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from tests.support.forked_process import starts_of_their_own
from trainer.run_dir.metrics import read

# 32 → 160 → 800 in a few seconds.
SHORT = [
    "--model=tests.support.models:tiny",
    "--augment=medium",
    "--train_split=train[:4000]",
    "--eval_split=test[:1000]",
    "--epochs=3",
    "--base_batch_size=32",
    "--ghost_batch_size=8",
    "--micro_batch_size=32",
    "--anneal=step",
    "--anneal_epochs=40%,70%",
    "--anneal_with=batch_size",
    "--max_batch_size=800",
    "--deterministic",
    "--log_every_updates=10",
]
# 16 → 32 on pictures of any size.
PICTURES = [
    "--model=tests.support.models:tiny",
    "--image_size=24",
    "--initial_batch_size=16",
    "--ghost_batch_size=16",
    "--max_batch_size=32",
    "--anneal=step",
    "--anneal_epochs=50%",
    "--anneal_factor=2",
    "--anneal_with=batch_size",
    "--log_every_updates=5",
    "--deterministic",
]
# After SHORT: one batch size and one rate.
CONSTANT = ["--anneal=constant", "--anneal_epochs=", "--anneal_with=learning_rate"]
# A checkpoint each 0.06 s.
OFTEN = "--checkpoint_minutes=0.001"
# With these evaluations SHORT prints 8 KB, so that it can be `held`, and learns the same.
MANY_EVALUATIONS = "--eval_every_epochs=0.02"


def command(model_dir, *arguments, program=("trainer",), name="train"):
    """Returns a command line; a run that names no precision is in float32 on every processor."""
    asks = any(str(argument).startswith("--precision") for argument in arguments)
    own = [] if asks or name not in ("train", "range_test", "sweep") else ["--precision=float32"]
    run = ["-m", *program, name, f"--model_dir={model_dir}", *own, *arguments]
    return [sys.executable, *run]


def train(model_dir, *arguments, status=0, name="train", start_of_its_own=False):
    """Returns the finished process, with what it printed."""
    process = started(model_dir, *arguments, name=name, start_of_its_own=start_of_its_own)
    output, errors = process.communicate()
    assert process.returncode == status, errors
    return subprocess.CompletedProcess(process.args, process.returncode, output, errors)


def result(model_dir):
    return json.loads((model_dir / "result.json").read_text())


def digest(model_dir):
    return result(model_dir)["parameters_sha256"]


def points(model_dir, split="train"):
    """Logged points without what depends on the clock."""
    clock = {"time", "examples_per_second", "input_wait"}
    found = read(model_dir / "metrics.jsonl")
    return [{k: v for k, v in p.items() if k not in clock} for p in found if p["split"] == split]


def started(
    model_dir, *arguments, program=("trainer",), name="train", env=None, start_of_its_own=False
):
    """Starts the program in a process.

    `start_of_its_own`: it does not share its imports, because the start is what is tested.
    """
    with starts_of_their_own() if start_of_its_own else contextlib.nullcontext():
        return subprocess.Popen(
            command(model_dir, *arguments, program=program, name=name),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A process group of its own: the signal is for it alone.
            start_new_session=True,
            env=env,
        )


@contextlib.contextmanager
def held(process):
    """Makes a process wait in the block as soon as 4,096 bytes of its output are unread.

    So a run that prints more cannot end in the block, on any machine: SHORT trains for one second.
    The block must begin before the process prints.
    """
    let_print(process, 4096)
    try:
        yield
    finally:
        if not process.stdout.closed:  # A failed wait has read all.
            let_print(process, 65_536)


def let_print(process, unread):
    """Makes a process wait once so many bytes of its output are unread; 4,096 times 1, 2, 4, …"""
    fcntl.fcntl(process.stdout, fcntl.F_SETPIPE_SZ, unread)


def checkpoints(model_dir):
    """Oldest first."""
    return sorted((model_dir / "checkpoints").glob("0*"))


def newest(model_dir):
    return max(checkpoints(model_dir), default=None)


def as_of(run, folder, update):
    """Copies a run to `folder`; its newest checkpoint is that of `update`, as a kill leaves it.

    The points that it logged after this checkpoint are there: the run that resumes repeats them.
    """
    shutil.copytree(run, folder)
    (folder / "result.json").unlink()
    later = [path for path in checkpoints(folder) if int(path.stem) > update]
    for path in later:
        shutil.rmtree(path)
    assert later
    assert int(checkpoints(folder)[-1].stem) == update
    return folder


def kill_after(process, model_dir, update, seconds=0.0):
    """SIGKILL, some seconds after it has written a checkpoint of `update` or a later one."""
    before = newest(model_dir)

    def went_on():
        path = newest(model_dir)
        return path and path != before and int(path.stem) >= update

    wait_for(went_on, process, pause=0.005)  # In 0.05 s, a fast machine trains ten updates.
    time.sleep(seconds)
    assert process.poll() is None, process.communicate()
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def wait_for(condition, process, pause=0.05):
    for _ in range(round(180 / pause)):
        if condition():
            return
        assert process.poll() is None, process.communicate()
        time.sleep(pause)
    pytest.fail("nothing happened in three minutes")
