"""Runs of several workers through scripts/launch_local.py, and what they have learned."""

import contextlib
import os
import re
import subprocess
import sys

import pytest

from tests.support.runs import points

# B 48 → 240 at 1.2 epochs, → 720 at 2.1, which two and three can share; each worker traces its step
# for one size of micro-batch throughout.
SMOOTH = [
    "--model=tests.support.models:smooth",
    "--augment=medium",
    "--train_split=train[:1200]",
    "--eval_split=test[:250]",
    "--epochs=3",
    "--base_batch_size=32",
    "--initial_batch_size=48",
    "--ghost_batch_size=8",
    "--micro_batch_size=24",
    "--anneal=step",
    "--anneal_epochs=40%,70%",
    "--anneal_with=batch_size",
    "--max_batch_size=720",
    "--deterministic",
    "--log_every_updates=1",
]
# SMOOTH for what depends on neither model nor images: a step that is traced in half the time.
LINEAR = [*SMOOTH, "--model=tests.support.models:reshaping", "--augment=none"]
# What launch_local.sh runs: its processes share their imports.
SCRIPT = (sys.executable, "scripts/launch_local.py")


def launched(workers, model_dir, *arguments, restarts=0, patience=10, script=SCRIPT):
    own = {"VIRTUAL_ENV": sys.prefix, "RESTARTS": str(restarts), "PATIENCE": str(patience)}
    return subprocess.Popen(
        [*script, str(workers), f"--model_dir={model_dir}", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=os.environ | own,
    )


def finished(process, status=0):
    output, errors = process.communicate(timeout=120)
    assert process.returncode == status, output + errors
    return output


def workers_of(process):
    """Returns the process ids by index."""
    found = {}
    for folder in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{folder}/stat") as stat:
            name, _, fields = stat.read().rpartition(")")
            match = re.search(r"\(worker(\d+):\d+$", name)
            if match and int(fields.split()[1]) == process.pid:
                found[int(match[1])] = int(folder)
    return found


def check_learned_the_same(model_dir, one):
    """Nothing that is learned depends on the workers, apart from rounding."""
    for split in ("train", "eval"):
        for ours, theirs in zip(points(model_dir, split), points(one, split), strict=True):
            for name in ("update", "position", "batch_size", "learning_rate"):
                assert ours[name] == theirs[name]
            assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)
            assert ours["top1"] == pytest.approx(theirs["top1"], abs=1e-6)
