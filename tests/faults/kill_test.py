"""SIGKILL at random moments, each after the run has visibly gone on."""

import random
import time

from tests.support.runs import (
    OFTEN,
    SHORT,
    digest,
    kill_after,
    newest,
    points,
    result,
    started,
    train,
)


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
    for kill in range(kills):
        least = choose.randrange(32 * kill, 32 * (kill + 1))
        start = time.monotonic()
        process = started(model_dir, *flags, OFTEN)
        kill_after(process, model_dir, least, choose.random() * 0.1)
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
