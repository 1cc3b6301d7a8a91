"""Runs that go on with another number of replicas, and what they have seen by then."""

import collections
import zlib

import pytest

from tests.support.runs import OFTEN, SHORT, kill_after, points, result, started, train
from trainer.data.sources import load

# A ReLU that a rounding error turns over makes 1e-5 of 1e-7 in an update, and 1e-2 of that in a
# hundred: the layout has no part in it.
SMOOTH = [*SHORT, "--model=tests.support.models:smooth", "--log_every_updates=1"]


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """The run on one replica throughout, a point an update."""
    model_dir = tmp_path_factory.mktemp("one") / "run"
    train(model_dir, *SMOOTH)
    return points(model_dir)


def test_one_four_two_replicas(one, tmp_path):
    """Resumes with a growth in each part: B 32 → 160 at 1.2 epochs, → 800 at 2.1.

    Three replicas are refused in between, and change nothing.
    """
    model_dir = tmp_path / "run"
    for replicas, until in ((1, 0.7), (3, 1.5), (4, 1.5), (2, 4)):
        layout = (f"--virtual_devices={replicas}", f"--stop_at_epoch={until}")
        done = train(model_dir, *SMOOTH, *layout, status=2 if replicas == 3 else 0)
        if replicas == 3:  # Three cannot share 32 = 4 and 800 = 100 ghost batches.
            assert "or one of 1, 2, 4 replicas" in done.stderr
    assert result(model_dir)["resumes"] == 2
    for ours, theirs in zip(points(model_dir), one, strict=True):
        for name in ("update", "position", "batch_size", "learning_rate"):
            assert ours[name] == theirs[name]
        assert ours["loss"] == pytest.approx(theirs["loss"], abs=1e-5)


def test_every_example_once_an_epoch(tmp_path):
    """Counted where the gradient is made, over kills, growths and changes of replicas."""
    dataset, split, examples = "fashion_mnist", "train[:3753]", 3753  # no batch divides it
    model_dir, counts = tmp_path / "run", []
    # 141 updates of 32, 22 of 160 and 5 of 800; killed at these updates.
    for replicas, least in ((1, 30), (4, 70), (2, 110), (4, 130), (1, None)):
        file = tmp_path / f"part-{len(counts)}"
        flags = [*SHORT, OFTEN, "--augment=none", f"--train_split={split}"]
        flags += [f"--virtual_devices={replicas}"]
        process = started(model_dir, *flags, program=["tests.support.counted", file])
        if least is None:
            output = process.communicate()
            assert process.returncode == 0, output
        else:
            kill_after(process, model_dir, least)
        counts.append(counted(file))
    end = result(model_dir)["position"]
    assert end == 141 * 32 + 22 * 160 + 5 * 800
    starts = [min(count) for count in counts]
    assert starts == sorted(set(starts))
    assert starts[0] == 0
    seen = {}
    for count, start, until in zip(counts, starts, [*starts[1:], end], strict=True):
        # What came after the last checkpoint is lost with its process.
        for position in range(start, until):
            (seen[position],) = count[position]
    images = load(dataset, split, None, None).images
    once = collections.Counter(zlib.crc32(image.tobytes()) for image in images)
    for epoch in range(3):
        first = epoch * examples
        found = [seen[position] for position in range(first, first + examples)]
        assert collections.Counter(found) == once
        assert found != [seen[position] for position in range(examples)] or epoch == 0


def counted(file):
    """Position → checksums of the examples that a process trained on there."""
    found = collections.defaultdict(list)
    for line in file.read_text().splitlines(keepends=True):
        if line.endswith("\n"):
            first, *sums = map(int, line.split())
            for i, checksum in enumerate(sums):
                found[first + i].append(checksum)
    return found
