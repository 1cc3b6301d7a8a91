"""Two processes on one directory; directories that cannot be written, or lead elsewhere."""

import os
import shutil
import signal
import subprocess

import pytest

from tests.support.runs import (
    OFTEN,
    SHORT,
    command,
    digest,
    kill_after,
    newest,
    started,
    train,
    wait_for,
)
from tests.support.small_disk import needs_mounts


def test_two_processes(uninterrupted, tmp_path):
    model_dir = tmp_path / "run"
    first = started(model_dir, *SHORT, OFTEN)
    wait_for(lambda: newest(model_dir), first)
    os.killpg(first.pid, signal.SIGSTOP)  # Or it may end before the second one starts.
    second = train(model_dir, *SHORT, status=2)
    os.killpg(first.pid, signal.SIGCONT)
    assert f"is in use by process {first.pid} on " in second.stderr
    output = first.communicate()
    assert first.returncode == 0, output
    assert digest(model_dir) == digest(uninterrupted[0])
    assert (model_dir / "lock").read_text() == ""


def test_an_owner_on_another_host(tmp_path):
    """Killed or out of the locks' reach: that cannot be told, and it says so."""
    model_dir = tmp_path / "run"
    process = started(model_dir, *SHORT, OFTEN)
    kill_after(process, model_dir, 1)
    assert f"process {process.pid} on " in (model_dir / "lock").read_text()
    done = train(model_dir, *SHORT, "--stop_at_epoch=0.001")
    assert "was last used by" not in done.stderr
    (model_dir / "lock").write_text("process 12 on elsewhere\n")
    done = train(model_dir, *SHORT, "--stop_at_epoch=0.001")
    assert "was last used by process 12 on elsewhere. That process was killed, or" in done.stderr


@needs_mounts
@pytest.mark.parametrize("begun", [True, False])
def test_a_read_only_directory(uninterrupted, tmp_path, begun):
    path = tmp_path / "disk"
    if begun:
        shutil.copytree(uninterrupted[0], path / "run")
        (path / "run" / "result.json").unlink()
    path.mkdir(exist_ok=True)
    shell = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" || exit 99; "${@:2}"'
    run = command(path / "run", *SHORT)
    done = subprocess.run(
        ["unshare", "-rm", "bash", "-c", shell, "-", path, *run], capture_output=True, text=True
    )
    assert done.returncode == 2, done.stderr
    first, second = done.stderr.splitlines()
    assert first.startswith(f"crescendo train: --model_dir={path}/run cannot be used: Read-only")
    assert second == "Name a folder that you can write."


@pytest.mark.parametrize("name", ["metrics.jsonl.tmp", "lock", "checkpoints", "tensorboard/train"])
def test_links_that_lead_out(tmp_path, name):
    """Leaves what links in a foreign run lead to as it is."""
    model_dir, victim = tmp_path / "run", tmp_path / "victim"
    link = model_dir / name
    link.parent.mkdir(parents=True)
    (model_dir / "flags.txt").touch()
    victim.write_text("precious")
    link.symlink_to(victim)
    done = train(model_dir, *SHORT, status=2)
    assert f"holds a link to {victim}: {link}" in done.stderr
    assert victim.read_text() == "precious"
