import errno
import os
import resource

import numpy as np
import pytest
import tensorflow as tf

from tests.support.small_checkpoints import opened, save
from trainer.errors import UserError
from trainer.run_dir.checkpoints import DamagedCheckpointError, digest, read


def values(variables):
    return [v.numpy().tolist() for group in variables.values() for v in group]


def zero(variables):
    for group in variables.values():
        for variable in group:
            variable.assign(tf.zeros_like(variable))


def test_round_trip(tmp_path, variables):
    before = values(variables)
    save(opened(tmp_path, variables), 7, position=896)
    zero(variables)
    assert opened(tmp_path, variables).restore() == {"update": 7, "position": 896}
    assert values(variables) == before


def test_restore_without_checkpoints_returns_none(tmp_path, variables):
    assert opened(tmp_path / "none", variables).restore() is None


def test_the_newest_are_kept_when_the_update_gains_a_digit(tmp_path, variables):
    checkpoints = opened(tmp_path, variables, keep=2)
    for update in (9, 10, 99, 100):
        save(checkpoints, update)
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == [99, 100]
    assert checkpoints.restore() == {"update": 100}


@pytest.mark.parametrize("damage", ["bit", "truncated", "missing"])
def test_a_damaged_newest_checkpoint_is_reported_and_skipped(tmp_path, variables, damage, logged):
    checkpoints = opened(tmp_path, variables)
    save(checkpoints, 1)
    before = values(variables)
    zero(variables)
    save(checkpoints, 2)
    (data,) = (tmp_path / "000000002").glob("*.data-*")
    content = bytearray(data.read_bytes())
    if damage == "bit":
        content[-3] ^= 4
        data.write_bytes(content)
    elif damage == "truncated":
        data.write_bytes(content[:-5])
    else:
        data.unlink()
    again = opened(tmp_path, variables)
    assert again.restore() == {"update": 1}
    assert values(variables) == before
    assert len(logged) == 1
    assert "000000002 is damaged" in logged[0]


@pytest.mark.usefixtures("logged")
def test_a_damaged_checkpoint_is_renamed_and_not_counted(tmp_path, variables):
    checkpoints = opened(tmp_path, variables, keep=2)
    for update in (800, 900):
        save(checkpoints, update)
    (tmp_path / "000000900" / "checkpoint.index").write_bytes(b"")
    again = opened(tmp_path, variables, keep=1)
    assert again.restore() == {"update": 800}
    save(again, 850)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000000850", "damaged-000000900"]


class OnAFullDevice:
    """Variable on a device that has no memory for its value."""

    dtype = tf.float32

    def assign(self, value):
        raise tf.errors.ResourceExhaustedError(None, None, f"OOM when allocating {value.shape}")


def test_an_error_of_the_device_is_not_damage(tmp_path, variables):
    for update in (1, 2):
        save(opened(tmp_path, variables), update)
    with pytest.raises(tf.errors.ResourceExhaustedError):
        opened(tmp_path, {**variables, "slots": [OnAFullDevice()]}).restore()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000001", "000000002"]


@pytest.fixture
def unreadable(monkeypatch, request):
    """Lets the system report the error number in the parameter for the newer checkpoint's files."""
    system_open = os.open

    def failing(path, *args, **kwargs):
        if "checkpoint.index" in str(path) and "000000002" in os.path.realpath(path):
            raise OSError(request.param, os.strerror(request.param), path)
        return system_open(path, *args, **kwargs)

    monkeypatch.setattr(os, "open", failing)


@pytest.mark.parametrize("unreadable", [errno.ESTALE, errno.EMFILE], indirect=True)
@pytest.mark.usefixtures("unreadable")
def test_a_checkpoint_that_cannot_be_read_is_not_damaged(tmp_path, variables):
    for update in (1, 2):
        save(opened(tmp_path, variables), update)
    with pytest.raises(UserError, match=r"000000002 cannot be read: .*000000002/checkpoint.index"):
        opened(tmp_path, variables).restore()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000001", "000000002"]


@pytest.mark.parametrize("unreadable", [errno.EIO], indirect=True)
@pytest.mark.usefixtures("unreadable")
def test_a_checkpoint_on_a_damaged_disk_is_damaged(tmp_path, variables, logged):
    for update in (1, 2):
        save(opened(tmp_path, variables), update)
    assert opened(tmp_path, variables).restore() == {"update": 1}
    assert "000000002 is damaged and left out" in logged[0]


@pytest.mark.usefixtures("logged")
def test_only_damaged_checkpoints_are_rejected(tmp_path, variables):
    checkpoints = opened(tmp_path, variables, keep=2)
    save(checkpoints, 1)
    (tmp_path / "000000001" / "checkpoint.index").unlink()
    for _ in range(2):  # The first failure must not make the second start a new run.
        with pytest.raises(UserError, match=r"every checkpoint in .* is damaged"):
            opened(tmp_path, variables).restore()


@pytest.mark.usefixtures("logged")
def test_the_same_update_may_be_damaged_twice(tmp_path, variables):
    checkpoints = opened(tmp_path, variables, keep=2)
    save(checkpoints, 1)
    for _ in range(2):
        checkpoints.save(2, {"update": 2, "when": os.urandom(4).hex()})
        checkpoints.wait()
        (tmp_path / "000000002" / "checkpoint.index").write_bytes(b"")
        assert opened(tmp_path, variables).restore() == {"update": 1}
        checkpoints = opened(tmp_path, variables, keep=2)
        checkpoints.restore()


@pytest.mark.usefixtures("logged")
def test_new_progress_at_the_same_update_replaces_the_checkpoint(tmp_path, variables):
    checkpoints = opened(tmp_path, variables, keep=2)
    names = []
    for update, progress in ((1, {}), (1, {}), (1, {"top1": 0.5}), (1, {"top1": 0.6}), (2, {})):
        checkpoints.save(update, progress)
        checkpoints.wait()
        names.append(sorted(path.name for path in tmp_path.iterdir()))
    one = "000000001"
    assert names == [[one], [one], [f"{one}.1"], [f"{one}.2"], [f"{one}.2", "000000002"]]
    (tmp_path / "000000002" / "checkpoint.index").unlink()
    assert opened(tmp_path, variables).restore() == {"top1": 0.6}


@pytest.mark.parametrize(
    "weights",
    [
        [],
        [[1.0, 2.0]],
        [[1.0, 2.0], [[3.0, 4.0]]],
        [[1.0], [[3.0]]],
        [[1.0, 2.0], [[3.0]], [4.0]],
    ],
)
def test_other_variables_are_rejected(tmp_path, variables, weights):
    save(opened(tmp_path, variables), 1)
    other = {**variables, "weights": [tf.Variable(value) for value in weights]}
    with pytest.raises(UserError, match="was written for another model"):
        opened(tmp_path, other, keep=2).restore()


def test_a_group_alone_can_be_read(tmp_path, variables):
    save(opened(tmp_path, variables), 1)
    before = variables["weights"][0].numpy().tolist()
    zero(variables)
    variables["slots"][0].assign([5.0, 5.0])
    assert read(tmp_path / "000000001", {"weights": variables["weights"]}) == {"update": 1}
    assert variables["weights"][0].numpy().tolist() == before
    assert variables["slots"][0].numpy().tolist() == [5.0, 5.0]


def test_a_half_written_checkpoint_is_ignored(tmp_path, variables):
    checkpoints = opened(tmp_path, variables)
    save(checkpoints, 1)
    (tmp_path / "incomplete").mkdir()
    (tmp_path / "incomplete" / "checkpoint.data-00000-of-00001").write_bytes(b"half")
    assert checkpoints.restore() == {"update": 1}
    save(checkpoints, 2)
    assert checkpoints.restore() == {"update": 2}


def test_save_writes_the_values_at_the_time_of_the_call(tmp_path, variables):
    checkpoints = opened(tmp_path, variables)
    before = values(variables)
    checkpoints.save(1, {})
    zero(variables)
    checkpoints.wait()
    checkpoints.restore()
    assert values(variables) == before


def test_the_best_is_kept_besides_the_newest(tmp_path, variables):
    checkpoints = opened(tmp_path, variables, keep=2)
    for update, best in ((1, 1), (2, 2), (3, 2), (4, 2), (5, 5), (6, 5), (7, 5), (8, 5)):
        checkpoints.save(update, {}, best=best)
    checkpoints.wait()
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == [5, 7, 8]


def test_a_failed_write_is_reported_and_keeps_the_last_checkpoint(tmp_path, variables, logged):
    """The kernel limits the size of files, which fails a write as a full disk does."""
    checkpoints = opened(tmp_path, variables)
    save(checkpoints, 1)
    before = values(variables)
    zero(variables)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64, limits[1]))
    try:
        checkpoints.save(2, {})
        assert checkpoints.wait() == 1
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    (report,) = logged
    assert "the checkpoint of update 2 cannot be written" in report
    assert [path.name for path in tmp_path.iterdir()] == ["000000001"]
    checkpoints.restore()
    assert values(variables) == before
    save(checkpoints, 3)


def test_digest_depends_on_values_shapes_and_order():
    a, b = tf.Variable([1.0, 2.0]), tf.Variable([[1.0, 2.0]])
    assert digest([a, b]) == digest([tf.Variable([1.0, 2.0]), b])
    assert len({digest(v) for v in ([a], [b], [a, b], [b, a])}) == 4
    nudged = tf.Variable(np.nextafter(np.float32([1, 2]), 3))
    assert digest([nudged]) != digest([a])


@pytest.mark.parametrize(
    "progress",
    [
        {"position": True},
        {"position": -1},
        {"position": 10**400},
        {"update": "7"},
        {"best": 3},
        {"window": {"loss": "x"}},
        {"setting": {"batch_size": 32}},
        {"evaluation": {"position": 1}},
        {"noise": {"trace": 1.0}},
        {"control": {"batch_size": 0}},
        {"statistics_starts": {"0": "x"}},
        {"training_data": []},
        {"model_configuration": 3},
        [],
        None,
    ],
    ids=str,
)
def test_a_checkpoint_with_malformed_progress_is_damaged(tmp_path, variables, progress, logged):
    checkpoints = opened(tmp_path, variables)
    save(checkpoints, 1)
    checkpoints.save(2, progress)
    checkpoints.wait()
    assert opened(tmp_path, variables).restore() == {"update": 1}
    assert f"{tmp_path}/000000002 is damaged and left out: " in logged[0]
    name = next(iter(progress)) if isinstance(progress, dict) else "it is not an object"
    assert f"left out: {name}" in logged[0]


@pytest.mark.parametrize("dtype", [tf.int32, tf.float16, tf.float64])
def test_values_of_another_type_are_rejected(tmp_path, variables, dtype):
    other = {name: [tf.cast(v, dtype) for v in group] for name, group in variables.items()}
    other = {name: [tf.Variable(v) for v in group] for name, group in other.items()}
    save(opened(tmp_path, other), 7)
    with pytest.raises(UserError, match="variable 0 of its group weights is"):
        read(tmp_path / "000000007", variables)


@pytest.mark.parametrize("progress", [1.0, ["a", "b"]], ids=str)
def test_a_progress_that_is_not_a_string_is_rejected(tmp_path, variables, progress):
    file = str(tmp_path / "000000007" / "checkpoint")
    tf.train.Checkpoint(progress=tf.Variable(progress), **variables).write(file)
    with pytest.raises(DamagedCheckpointError, match="progress is not a string"):
        read(tmp_path / "000000007", variables)
