"""A learning rate that diverges in the midst of a run."""

import re

import numpy as np
import tensorflow as tf

from tests.support.runs import CONSTANT, OFTEN, SHORT, checkpoints, newest, points, train

WILD = [*CONSTANT, "--base_learning_rate=1e12", "--warmup_epochs=3", "--warmup_from=1e-14"]


def test_the_newest_checkpoint_is_of_before(tmp_path):
    done = train(tmp_path / "run", *SHORT, OFTEN, *WILD, status=3)
    line, remedy = done.stderr.splitlines()[-2:]
    found = re.search(
        r"update (\d+), position (\d+), with learning rate [\d.e+]+ and batch size 32", line
    )
    assert found, line
    update, position = map(int, found.groups())
    assert position == 32 * update
    record = tmp_path / "run" / "diverged.txt"
    assert record.read_text() == f"{line.partition(': ')[2]}\n{remedy}\n"
    # A call that is refused before it trains does not remove the record.
    replicas = ("--strategy=mirrored", "--virtual_devices=3")
    refused = train(tmp_path / "run", *SHORT, OFTEN, *WILD, *replicas, status=2)
    assert "3 replicas" in refused.stderr
    assert record.exists()
    assert "with a lower learning rate, or with --warmup_epochs" in remedy
    *_, newest = checkpoints(tmp_path / "run")
    assert 0 < int(newest.stem) < update
    reader = tf.train.load_checkpoint(str(newest / "checkpoint"))
    for name, shape in reader.get_variable_to_shape_map().items():
        if shape:
            assert np.isfinite(reader.get_tensor(name)).all(), name
    assert all(np.isfinite(point["loss"]) for point in points(tmp_path / "run"))


def test_statistics_that_are_no_numbers_are_named_as_such(tmp_path):
    """Diverges in a way that the evaluation does not show: its loss is finite."""
    model = "--model=tests.support.models:overflowing"
    done = train(tmp_path / "run", *SHORT, model, "--epochs=0.001", status=3)
    line, _ = done.stderr.splitlines()[-2:]
    assert "parameters, optimizer slots or moving statistics are not finite after update 1" in line
    assert newest(tmp_path / "run") is None
