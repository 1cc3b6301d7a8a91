"""SIGTERM and SIGINT to a run that is on its way."""

import shutil
import signal
import time

import pytest

from tests.support.runs import (
    CONSTANT,
    OFTEN,
    SHORT,
    digest,
    newest,
    points,
    result,
    started,
    train,
    wait_for,
)
from trainer.run_dir.metrics import read


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_with_a_checkpoint(uninterrupted, tmp_path, number):
    model_dir = tmp_path / "stopped"
    for _ in range(5):  # On a busy machine, the run may end before the signal.
        process = started(model_dir, *SHORT)
        wait_for(lambda: read(model_dir / "metrics.jsonl"), process)
        process.send_signal(number)
        output, _ = process.communicate(timeout=30)  # A stretch takes up to two seconds.
        if process.returncode:
            break
        shutil.rmtree(model_dir)
    assert process.returncode == 75
    assert "stopped, with a checkpoint; the same command resumes" in output
    assert newest(model_dir) is not None
    train(model_dir, *SHORT)
    assert digest(model_dir) == digest(uninterrupted[0])


def test_a_terminal_that_hangs_up_twice_stops_with_a_checkpoint(tmp_path):
    """Sends two signals, as bash and the kernel do when a terminal hangs up."""
    model_dir = tmp_path / "hung up"
    # On a busy machine, a short run may end before the signal.
    process = started(model_dir, *SHORT, "--epochs=30")
    wait_for(lambda: read(model_dir / "metrics.jsonl"), process)
    process.send_signal(signal.SIGHUP)
    time.sleep(0.002)  # or the kernel makes one of two
    process.send_signal(signal.SIGHUP)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 75
    assert "stopped, with a checkpoint" in output


def test_a_second_signal_leaves_at_once(uninterrupted, tmp_path):
    model_dir = tmp_path / "left"
    for _ in range(5):  # On a busy machine the run may have stopped before the second one.
        before = newest(model_dir)
        process = started(model_dir, *SHORT, OFTEN)
        wait_for(lambda before=before: newest(model_dir) != before, process)
        process.terminate()
        time.sleep(0.002)  # The kernel may deliver them in another order.
        # After a second SIGTERM, the program would look for its parent for 0.1 s.
        process.send_signal(signal.SIGINT)
        output, _ = process.communicate(timeout=5)
        assert process.returncode == 75
        if "stopped, with a checkpoint" not in output:
            break
    else:
        pytest.fail("it waited for a checkpoint each time")
    train(model_dir, *SHORT)
    assert digest(model_dir) == digest(uninterrupted[0])


def test_a_signal_in_a_long_evaluation(tmp_path):
    """Interrupts an evaluation, which is then made once, when the run is resumed."""
    model_dir = tmp_path / "long"
    flags = [*SHORT, *CONSTANT, "--epochs=0.04"]
    flags += ["--model=wide_resnet_10_1", "--eval_split=train[:12000]"]
    process = started(model_dir, *flags)
    wait_for(lambda: points(model_dir), process)  # the last of five updates
    process.terminate()
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 75, output
    assert newest(model_dir).name == "000000005"
    assert points(model_dir, "eval") == []
    train(model_dir, *flags)
    assert [point["update"] for point in points(model_dir, "eval")] == [5]
    assert result(model_dir)["top1"] == points(model_dir, "eval")[0]["top1"]
    assert result(model_dir)["updates"] == 5


def test_a_signal_before_training_ends_at_once(tmp_path):
    process = started(tmp_path / "early", *SHORT, start_of_its_own=True)
    wait_for(lambda: (tmp_path / "early" / "lock").exists(), process)
    time.sleep(1)  # in the midst of TensorFlow's import
    process.terminate()
    process.communicate(timeout=5)
    assert process.returncode == 75
