"""Packs an update and runs it by JAX, on a CPU, if the compiler's environment is installed.

`scripts/gpu/pack.sh` installs its 350 MB; a test run does not.
"""

import json
import math
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from scripts.gpu import gpu_fit, measure, pack
from tests.support.configs import parsed
from trainer.errors import UserError
from trainer.schedule.noise_scale import Setting

FLAGS = ["--model=tests.support.models:tiny", "--dataset=fashion_mnist", "--ghost_batch_size=8"]
FLAGS += ["--base_batch_size=256", "--micro_batch_size=16", "--weight_decay=1e-4"]
PYTHON = gpu_fit.compiler("h100", 1).python
with_compiler = pytest.mark.skipif(
    not PYTHON.exists(), reason="scripts/gpu/pack.sh makes the compiler's environment"
)


def packed(folder, *flags, accumulation):
    own = [f"--output={folder}", f"--accumulation={accumulation}"]
    command = [sys.executable, "-m", "scripts.gpu.pack", *own, *FLAGS, *flags]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"run on the machine with the GPU: python {folder}/measure.py\n"


def measured(folder):
    """Returns the status and the last line of the package's measure.py."""
    command = [PYTHON, folder / "measure.py", "--seconds=0.1"]
    done = subprocess.run(command, capture_output=True, text=True, cwd="/", check=False)
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout.splitlines()[-1])


@with_compiler
@pytest.mark.parametrize(
    ("flags", "accumulation"),
    [
        (["--precision=float32"], 1),
        (["--precision=float32", "--optimizer=adamw", "--ema_decay=0.9", "--clip_norm=0.1"], 3),
        (["--precision=bfloat16"], 2),
    ],
)
def test_jax_has_the_losses_of_the_trainer(tmp_path, flags, accumulation):
    folder = tmp_path / "package"
    packed(folder, *flags, accumulation=accumulation)
    status, found = measured(folder)
    assert status == 0, found
    assert found["loss_difference"] <= (1e-5 if "float32" in flags[0] else 2e-2)
    assert found["images_per_second"] > 0
    assert (found["micro_batch_size"], found["accumulation"]) == (16, accumulation)
    # Another loss is noticed.
    path = folder / "package.json"
    package = json.loads(path.read_text())
    package["losses"][-1] += 0.1
    path.write_text(json.dumps(package))
    assert measured(folder)[0] == 1


@pytest.mark.parametrize("lost", [math.nan, math.inf])
def test_losses_that_are_not_finite_do_not_agree(lost):
    assert not measure.largest_difference([2.3, lost, 2.1], [2.3, 2.2, 2.1]) <= 2e-2


def test_a_mistake_in_the_flags_is_refused_in_two_lines(tmp_path):
    command = [sys.executable, "-m", "scripts.gpu.pack", f"--output={tmp_path}/x", "--epoch=2"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-2].startswith("pack: Unknown command line flag 'epoch'")
    assert not pathlib.Path(tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("flag", "named"),
    [
        ("--layer_decay=0.5", "--layer_decay"),
        ("--augment=medium,mixup", "--augment=mixup"),
        ("--image_sizes=14@0%,28@50%", "--image_sizes"),
    ],
)
def test_what_a_package_would_leave_out_is_refused(flag, named):
    with pytest.raises(UserError, match=f"a package has no {named}.\nLeave"):
        pack.check(parsed(flag, command="plan"), 1)
    with pytest.raises(UserError, match="--accumulation=0 is below 1"):
        pack.check(parsed(command="plan"), 0)


def test_the_trainers_losses_do_not_depend_on_how_often_they_are_computed():
    from scripts.fit import trace

    config = parsed(*FLAGS, "--precision=float32", command="plan")
    data = trace.training_data(config, 60_000)
    batches = pack.check_batches(data, 28, 16)
    start = Setting(32, 0.1, 0.9)
    first, second = (pack.expected_losses(config, data, batches, 2, start) for _ in range(2))
    assert len(first) == pack.UPDATES
    np.testing.assert_allclose(first, second, atol=1e-6)
