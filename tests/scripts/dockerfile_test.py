"""The steps of scripts/cluster/Dockerfile, in a folder in place of an image."""

import configparser
import pathlib
import re
import shlex
import shutil
import subprocess
import sys

import pytest

LINES = [
    line
    for line in pathlib.Path("scripts/cluster/Dockerfile").read_text().splitlines()
    if line and not line.startswith("#")
]


def steps(instruction):
    return [line.partition(" ")[2] for line in LINES if line.startswith(f"{instruction} ")]


@pytest.fixture
def image(tmp_path):
    """A folder with what the COPY steps bring."""
    for step in steps("COPY"):
        *sources, target = shlex.split(step)
        for source in sources:
            if pathlib.Path(source).is_dir():
                left_out = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, tmp_path / target, ignore=left_out)
            else:
                shutil.copy(source, tmp_path / target)
    return tmp_path


def test_the_extras_exist():
    (command,) = steps("RUN")
    (extras,) = re.findall(r"\.\[\$DEVICE,(.*)\]", command)
    config = configparser.ConfigParser()
    config.read("setup.cfg")
    assert {"cpu", "gpu", *extras.split(",")} <= {*config["options.extras_require"]}
    assert steps("ARG") == ["DEVICE=cpu"]


def test_the_package_and_the_recipes_are_in_the_image(image):
    assert steps("ENTRYPOINT") == ['["python", "-m", "trainer"]']
    command = [sys.executable, "-m", "trainer", "plan"]
    flags = ["--flagfile=flags/fashion_mnist_grow.flags", "--train_examples=60000"]
    done = subprocess.run([*command, *flags], cwd=image, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("epoch")


def test_the_manifest_of_kubernetes_names_files_of_the_image(image):
    manifest = pathlib.Path("scripts/cluster/train_k8s.yaml").read_text()
    recipes = re.findall(r"--flagfile=(\S+)", manifest)
    assert recipes
    assert all((image / recipe).is_file() for recipe in recipes)
    assert "command: [python, -m, trainer, train]" in manifest
