"""Files of a run that are cut, flipped or missing when it goes on."""

import shutil

import pytest

from tests.support.runs import OFTEN, SHORT, checkpoints, digest, points, train


@pytest.fixture(scope="module")
def half(tmp_path_factory):
    """A run that left after its first growth, with three checkpoints."""
    model_dir = tmp_path_factory.mktemp("half") / "run"
    train(model_dir, *SHORT, OFTEN, "--stop_at_epoch=2")
    assert len(checkpoints(model_dir)) >= 2
    return model_dir


@pytest.fixture
def run(half, tmp_path):
    return shutil.copytree(half, tmp_path / "run")


def data(checkpoint):
    (found,) = checkpoint.glob("checkpoint.data-*")
    return found


def index(checkpoint):
    return checkpoint / "checkpoint.index"


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    """One bit, in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def remove(path):
    path.unlink()


@pytest.mark.parametrize(
    ("file", "damage"), [(data, cut), (data, flip), (index, flip), (index, remove)]
)
def test_the_checkpoint_before_a_damaged_one(uninterrupted, run, file, damage):
    *_, newest = checkpoints(run)
    damage(file(newest))
    done = train(run, *SHORT)
    assert f"checkpoint {newest} is damaged and left out" in done.stdout
    assert (run / "checkpoints" / f"damaged-{newest.name}").exists()
    assert digest(run) == digest(uninterrupted[0])
    for split in ("train", "eval"):
        assert points(run, split) == points(uninterrupted[0], split)


def test_a_half_written_checkpoint(uninterrupted, run):
    *_, newest = checkpoints(run)
    incomplete = shutil.copytree(newest, run / "checkpoints" / "incomplete")
    cut(data(incomplete))
    index(incomplete).unlink()
    train(run, *SHORT)
    assert not incomplete.exists()
    assert digest(run) == digest(uninterrupted[0])


def test_no_checkpoint_is_whole(run):
    for checkpoint in checkpoints(run):
        cut(data(checkpoint))
    done = train(run, *SHORT, status=2)
    *_, first, second = done.stderr.splitlines()
    assert first.startswith(f"crescendo train: every checkpoint in {run}/checkpoints is damaged")
    assert "--model_dir" in second


def test_a_line_of_the_log(uninterrupted, run):
    log = run / "metrics.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([lines[0], b"\xff\x00{" + lines[1][9:], *lines[2:]]))
    done = train(run, *SHORT)
    assert f"line 2 of {log} is damaged and left out" in done.stdout
    assert digest(run) == digest(uninterrupted[0])
    whole = points(uninterrupted[0])
    assert points(run) == [whole[0], *whole[2:]]


def test_the_result(run):
    (run / "result.json").write_text('{"top1": ')
    done = train(run, *SHORT, status=2)
    assert f"{run}/result.json is damaged" in done.stderr


def test_the_flags(run):
    flip(run / "flags.txt")
    done = train(run, *SHORT, status=2)
    assert "holds a run with other flags" in done.stderr
