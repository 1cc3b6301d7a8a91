"""Files of a run that are cut, flipped or missing when it goes on."""

import re
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


@pytest.fixture(scope="module")
def damaged(half, tmp_path_factory):
    """The finished run of which checkpoints and a line of the log were damaged before it went on.

    Its directory, its four damaged checkpoints, the half-written one, and the finished process.
    """
    run = shutil.copytree(half, tmp_path_factory.mktemp("damaged") / "run")
    *_, newest = checkpoints(run)
    copies = [newest.with_name(f"{newest.name}.{number}") for number in (1, 2, 3)]
    wrong = [newest, *(shutil.copytree(newest, copy) for copy in copies)]
    ways = [(data, cut), (data, flip), (index, flip), (index, remove)]
    for checkpoint, (file, damage) in zip(wrong, ways, strict=True):
        damage(file(checkpoint))
    incomplete = shutil.copytree(checkpoints(run)[0], run / "checkpoints" / "incomplete")
    cut(data(incomplete))
    index(incomplete).unlink()
    log = run / "metrics.jsonl"
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join([lines[0], b"\xff\x00{" + lines[1][9:], *lines[2:]]))
    return run, wrong, incomplete, train(run, *SHORT)


def test_the_checkpoint_before_the_damaged_ones(uninterrupted, damaged):
    run, wrong, _, done = damaged
    for checkpoint in wrong:
        assert f"checkpoint {checkpoint} is damaged and left out" in done.stdout
        assert (run / "checkpoints" / f"damaged-{checkpoint.name}").exists()
    assert digest(run) == digest(uninterrupted[0])
    assert points(run, "eval") == points(uninterrupted[0], "eval")


def test_a_half_written_checkpoint(damaged):
    _, wrong, incomplete, done = damaged
    assert not incomplete.exists()
    assert len(re.findall("checkpoint .* is damaged", done.stdout)) == len(wrong)


def test_a_line_of_the_log(uninterrupted, damaged):
    run, _, _, done = damaged
    assert f"line 2 of {run / 'metrics.jsonl'} is damaged and left out" in done.stdout
    whole = points(uninterrupted[0])
    assert points(run) == [whole[0], *whole[2:]]


def test_no_checkpoint_is_whole(run):
    for checkpoint in checkpoints(run):
        cut(data(checkpoint))
    done = train(run, *SHORT, status=2)
    *_, first, second = done.stderr.splitlines()
    assert first.startswith(f"crescendo train: every checkpoint in {run}/checkpoints is damaged")
    assert "--model_dir" in second


def test_the_result(run):
    (run / "result.json").write_text('{"top1": ')
    done = train(run, *SHORT, status=2)
    assert f"{run}/result.json is damaged" in done.stderr


def test_the_flags(run):
    flip(run / "flags.txt")
    done = train(run, *SHORT, status=2)
    assert "holds a run with other flags" in done.stderr
