"""SIGKILL at random moments, each after the run has visibly gone on."""

import os
import random
import signal
import time

from tests.runs import SHORT, digest, newest, points, result, started, train, wait_for

OFTEN = "--checkpoint_minutes=0.005"


def test_killed_again_and_again_ends_with_the_same_bits(uninterrupted, tmp_path, pytestconfig):
    model_dir, kills = tmp_path / "killed", pytestconfig.getoption("kills")
    # The more kills, the more epochs for them; then the reference is a run of its own.
    flags, reference = SHORT, uninterrupted[0]
    if kills > 5:
        flags = [*SHORT, f"--epochs={3 * kills // 5}"]
        reference = tmp_path / "reference"
        train(reference, *flags)
    choose, moments, alive = random.Random(4), [], 0.0
    # Three epochs are 178 updates; from 150 on, for three fifths of the examples, B is larger.
    for least in sorted(choose.randrange(32 * kills) for _ in range(kills)):
        before, start = newest(model_dir), time.monotonic()
        process = started(model_dir, *flags, OFTEN)

        def went_on(before=before, least=least):
            path = newest(model_dir)
            return path and path != before and int(path.name) >= least

        wait_for(went_on, process)
        time.sleep(choose.random() * 0.3)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        alive += time.monotonic() - start
        moments.append(newest(model_dir).name)
    start = time.monotonic()
    train(model_dir, *flags, OFTEN)
    alive += time.monotonic() - start
    found = result(model_dir)
    print(f"killed after checkpoints {moments}; {found['seconds']:.1f} s of {alive:.1f} s trained")
    assert found["resumes"] >= 1
    assert digest(model_dir) == digest(reference), moments
    for split in ("train", "eval"):
        assert points(model_dir, split) == points(reference, split), moments
