import numpy as np
import pytest
import tensorflow as tf

from trainer.config import UserError
from trainer.run_dir.checkpoints import Checkpoints, digest


@pytest.fixture
def variables():
    return {
        "weights": [tf.Variable([1.0, 2.0]), tf.Variable([[3.0]])],
        "slots": [tf.Variable([0.0, 0.0])],
    }


def values(variables):
    return [v.numpy().tolist() for group in variables.values() for v in group]


def zero(variables):
    for group in variables.values():
        for variable in group:
            variable.assign(tf.zeros_like(variable))


def nothing(text):
    pytest.fail(f"reported {text!r}")


def test_round_trip(tmp_path, variables):
    before = values(variables)
    Checkpoints(tmp_path, variables, keep=3).save(7, {"position": 896})
    zero(variables)
    assert Checkpoints(tmp_path, variables, keep=3).restore(nothing) == {"position": 896}
    assert values(variables) == before


def test_none_to_restore(tmp_path, variables):
    assert Checkpoints(tmp_path / "none", variables, keep=3).restore(nothing) is None


def test_the_newest_are_kept_across_a_change_of_digits(tmp_path, variables):
    checkpoints = Checkpoints(tmp_path, variables, keep=2)
    for update in (9, 10, 99, 100):
        checkpoints.save(update, {"update": update})
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == [99, 100]
    assert checkpoints.restore(nothing) == {"update": 100}


@pytest.mark.parametrize("damage", ["bit", "truncated", "missing"])
def test_a_damaged_newest_is_reported_and_the_one_before_used(tmp_path, variables, damage):
    checkpoints = Checkpoints(tmp_path, variables, keep=3)
    checkpoints.save(1, {"update": 1})
    before = values(variables)
    zero(variables)
    checkpoints.save(2, {"update": 2})
    (data,) = (tmp_path / "000000002").glob("*.data-*")
    content = bytearray(data.read_bytes())
    if damage == "bit":
        content[-3] ^= 4
        data.write_bytes(content)
    elif damage == "truncated":
        data.write_bytes(content[:-5])
    else:
        data.unlink()
    reports = []
    assert checkpoints.restore(reports.append) == {"update": 1}
    assert values(variables) == before
    assert len(reports) == 1
    assert "000000002 is damaged" in reports[0]


def test_a_damaged_one_is_put_aside_and_never_kept_instead_of_a_whole_one(tmp_path, variables):
    checkpoints = Checkpoints(tmp_path, variables, keep=2)
    for update in (800, 900):
        checkpoints.save(update, {"update": update})
    (tmp_path / "000000900" / "checkpoint.index").write_bytes(b"")
    again = Checkpoints(tmp_path, variables, keep=1)
    assert again.restore(lambda text: None) == {"update": 800}
    again.save(850, {"update": 850})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["000000850", "damaged-000000900"]


def test_none_whole_is_refused(tmp_path, variables):
    checkpoints = Checkpoints(tmp_path, variables, keep=2)
    checkpoints.save(1, {})
    (tmp_path / "000000001" / "checkpoint.index").unlink()
    with pytest.raises(UserError, match=r"every checkpoint in .* is damaged"):
        Checkpoints(tmp_path, variables, keep=2).restore(lambda text: None)


@pytest.mark.parametrize("weights", [[[1.0, 2.0]], [[1.0, 2.0], [[3.0, 4.0]]], [[1.0], [[3.0]]]])
def test_other_variables_are_refused(tmp_path, variables, weights):
    Checkpoints(tmp_path, variables, keep=2).save(1, {})
    other = {**variables, "weights": [tf.Variable(value) for value in weights]}
    with pytest.raises(UserError, match="is of another model"):
        Checkpoints(tmp_path, other, keep=2).restore(nothing)


def test_a_half_written_checkpoint_is_no_checkpoint(tmp_path, variables):
    checkpoints = Checkpoints(tmp_path, variables, keep=3)
    checkpoints.save(1, {"update": 1})
    (tmp_path / "incomplete").mkdir()
    (tmp_path / "incomplete" / "checkpoint.data-00000-of-00001").write_bytes(b"half")
    assert checkpoints.restore(nothing) == {"update": 1}
    checkpoints.save(2, {"update": 2})
    assert checkpoints.restore(nothing) == {"update": 2}


def test_digest_sees_values_shapes_and_order():
    a, b = tf.Variable([1.0, 2.0]), tf.Variable([[1.0, 2.0]])
    assert digest([a, b]) == digest([tf.Variable([1.0, 2.0]), b])
    assert len({digest(v) for v in ([a], [b], [a, b], [b, a])}) == 4
    nudged = tf.Variable(np.nextafter(np.float32([1, 2]), 3))
    assert digest([nudged]) != digest([a])
