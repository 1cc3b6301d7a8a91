"""Tests tpu_fit.py with libtpu's compiler if it is installed, and how its messages are read.

`scripts/tpu/tpu_fit.sh` installs the compiler's 300 MB; a test run does not.
"""

import subprocess
import sys

import pytest

from scripts.tpu import tpu_compile, tpu_fit
from tests.scripts.fit_test import TINY

with_compiler = pytest.mark.skipif(
    not tpu_fit.compiler("v5e:2x4").python.exists(),
    reason="scripts/tpu/tpu_fit.sh makes the compiler's environment",
)


@pytest.mark.parametrize(
    ("message", "needs", "has"),
    [
        (
            "RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory "
            "space hbm. Used 107.09G of 15.75G hbm. Exceeded hbm capacity by 91.34G.",
            107.09,
            15.75,
        ),
        (
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO "
            "temporaries (8.00T) exceeds available HBM (30.75G).",
            8192,
            30.75,
        ),
    ],
)
def test_the_refusal_of_a_large_program_is_parsed(message, needs, has):
    gibibytes = 2**30
    refusal = tpu_compile.refusal(message)
    assert refusal == {"needs": int(needs * gibibytes), "has": int(has * gibibytes)}


def test_another_error_is_not_parsed_as_a_size():
    assert tpu_compile.refusal("INVALID_ARGUMENT: no such thing, 3G of 4G") is None


def fit(*arguments):
    """The program's status, stdout, and stderr without TensorFlow's notes."""
    done = subprocess.run(
        [sys.executable, "-m", "scripts.tpu.tpu_fit", *TINY, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    errors = done.stderr.splitlines()
    start = next((i for i, line in enumerate(errors) if line.startswith("tpu_fit: ")), len(errors))
    return done.returncode, done.stdout, errors[start:]


@with_compiler
@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--topology=v9:2x2"], "v9:2x2"),
        (["--topology=v5e:2x3"], "v5e:2x3"),
        ([], "--topology"),
        (["--topology=v5e:2x4", "--initial_batch_size=24"], "24 is not a multiple of 8 replicas"),
    ],
)
def test_users_mistakes_are_refused_in_two_lines(arguments, named):
    status, out, errors = fit(*arguments)
    assert (status, out, len(errors)) == (2, "", 2), errors
    assert named in errors[0]


@with_compiler
def test_a_tiny_model_fits_and_its_update_is_one_reduction():
    status, out, _ = fit("--topology=v5e:2x4", "--micro_batch_size=16")
    assert status == 0, out
    assert "v5e:2x4: 8 cores (TPU v5 lite), 15.75 GiB each" in out
    assert "largest batch 256 = 8 cores × micro-batch 16 × 2" in out
    assert "micro-batch 16: fits: 0.0" in out
    assert "collectives: an update 1 × all-reduce, 0.0 MB; within accumulation none" in out
    assert "largest micro-batch that fits: 32, of 8, 16, 32" in out


@with_compiler
def test_a_slice_of_several_hosts_is_compiled():
    status, out, _ = fit("--topology=v5e:4x4", "--micro_batch_size=16")
    assert status == 0, out
    assert "v5e:4x4: 16 cores (TPU v5 lite), 15.75 GiB each" in out
    assert "collectives: an update 1 × all-reduce, 0.0 MB; within accumulation none" in out


@with_compiler
def test_a_program_that_does_not_fit_is_reported_with_its_size():
    huge = ["--image_size=1024", "--ghost_batch_size=4096", "--base_batch_size=32768"]
    status, out, _ = fit("--topology=v5e:2x4", *huge)
    assert status == 1, out
    assert "micro-batch 4096: does not fit: " in out
    assert " of 15.75 GiB a core\nno micro-batch was found that fits.\n" in out
