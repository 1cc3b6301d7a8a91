"""Runs scripts/setup.sh in its own checkout, with a stand-in for Python that records its calls."""

import os
import shutil
import subprocess

import pytest

# Replaces python3 and .venv/bin/python. Its pip takes a second, and fails if .venv is gone.
PYTHON = """#!/usr/bin/env bash
case $* in
  "-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
  "-m pip"*) echo installed >>installations; sleep 1; [ -e .venv/bin/python ] ;;
esac
"""


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "scripts").mkdir()
    shutil.copy("scripts/setup.sh", tmp_path / "scripts")
    shutil.copy("setup.cfg", tmp_path)
    (tmp_path / "python").write_text(PYTHON)
    (tmp_path / "python").chmod(0o755)
    data = tmp_path / "data/fashion_mnist/1"
    data.mkdir(parents=True)
    (data / "dataset_info.json").touch()
    return tmp_path


def started(checkout):
    """Starts one first use."""
    own = {"PYTHON": str(checkout / "python"), "TFDS_DATA_DIR": str(checkout / "data")}
    return subprocess.Popen(
        ["bash", "-c", ". scripts/setup.sh; echo ready"],
        cwd=checkout,
        env=os.environ | own,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(not shutil.which("flock"), reason="flock is missing")
def test_only_one_of_two_first_uses_installs(checkout):
    both = [started(checkout), started(checkout)]
    outputs = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert [out for out, _ in outputs] == ["ready\n"] * 2
    assert sorted("Setting up" in errors for _, errors in outputs) == [False, True]
    assert (checkout / "installations").read_text().splitlines() == ["installed"]
    assert (checkout / "setup.cfg").read_bytes() == (
        checkout / ".venv/installed_setup.cfg"
    ).read_bytes()


def test_a_failed_installation_ends_setup_and_is_retried(checkout):
    python = checkout / "python"
    python.write_text(PYTHON.replace("sleep 1;", "exit 1;"))
    process = started(checkout)
    assert process.communicate(timeout=120)[0] == ""
    assert process.returncode == 1
    python.write_text(PYTHON)
    process = started(checkout)
    assert process.communicate(timeout=120)[0] == "ready\n"
    assert process.returncode == 0
