"""Flags of a forked run: those of the run that it begins with, and a noise scale without a step."""

import random

import pytest

from tests.support import run_directories
from tests.support.configs import parsed
from trainer.config.command_line import parse
from trainer.config.flagfile import to_flagfile
from trainer.errors import UserError
from trainer.run_dir import fork_source
from trainer.schedule import trajectory

N = 60_000
GHOST = 32
SCHEDULES = [
    ["--anneal=constant"],
    ["--anneal=step", "--anneal_epochs=30%,60%,80%"],
    ["--anneal=cosine"],
    ["--anneal=polynomial", "--anneal_power=3"],
    ["--anneal=exponential", "--anneal_epochs=4"],
]


def child_of(folder, *flags):
    given = [f"--fork_from={folder}@newest", *flags]
    return fork_source.with_parent_flags("train", parse("train", given), given)


def random_pair(number):
    """Flags of a parent, and of a child that differs in rate, batch size, momentum or growth."""
    draw = random.Random(number)
    flags = [*draw.choice(SCHEDULES), f"--epochs={draw.choice([5, 16])}"]
    flags += [f"--anneal_with={draw.choice(['learning_rate', 'batch_size'])}"]
    flags += [f"--base_batch_size={GHOST * draw.randrange(1, 6)}"]
    flags += [f"--base_learning_rate={draw.uniform(0.01, 0.2):.4f}"]
    flags += draw.choice([[], ["--momentum=0.8"], [f"--initial_batch_size={6 * GHOST}"]])
    other = draw.choice(
        [
            [f"--initial_batch_size={GHOST * draw.randrange(1, 20)}"],
            [f"--initial_learning_rate={draw.uniform(0.05, 0.4):.5f}"],
            [f"--momentum={draw.choice([0.5, 0.9, 0.95])}"],
            [f"--initial_batch_size={GHOST * draw.randrange(1, 20)}", "--momentum=0.95"],
            ["--anneal_with=batch_size", "--max_batch_size=5120"],
            [],
        ]
    )
    return flags, other


@pytest.mark.parametrize("number", range(20))
def test_the_noise_scale_goes_on_without_a_step(tmp_path, number):
    """Annealing, length and number of examples are the parent's; batch, rate or momentum not."""
    flags, other = random_pair(number)
    run_directories.write(tmp_path / "parent", *flags)
    parent = parsed("--epochs=2", *flags)
    child = child_of(tmp_path / "parent", *other)
    before, after = (trajectory.from_config(config, N, 1) for config in (parent, child))
    assert before.end == after.end
    for position in random.Random(number).sample(range(before.end), 50):
        ours, parents = (run.noise_scale(run.at(position)) for run in (after, before))
        assert ours == pytest.approx(parents, rel=1e-9), position


def test_flags_that_are_not_given_are_the_parents(tmp_path):
    folder = tmp_path / "parent"
    run_directories.write(folder, "--seed=7", "--augment=medium", "--momentum=0.8", "--xla=off")
    child = child_of(folder, "--augment=none")
    assert (child.seed, child.augment, child.momentum, child.xla) == (7, "none", 0.8, "off")
    assert (child.model_dir, child.fork_from) == (None, f"{folder}@newest")
    assert child.precision == "float32"  # The parent recorded none.


def test_the_start_is_solved_with_the_parents_start_as_the_reference(tmp_path):
    """The learning rate stays the parent's if only --momentum is given, and the batch grows."""
    run_directories.write(tmp_path / "a", "--base_learning_rate=0.1", "--initial_batch_size=640")
    child = child_of(tmp_path / "a", "--momentum=0.95")
    start = trajectory.start_of(child)
    assert start.learning_rate == pytest.approx(0.5)
    assert (start.batch_size, start.momentum) == (1280, 0.95)
    assert (child.base_learning_rate, child.base_batch_size) == (0.1, 128)  # EMA counts by B₀.


def test_another_reference_replaces_the_parents_start(tmp_path):
    run_directories.write(tmp_path / "a", "--initial_batch_size=640")
    child = child_of(tmp_path / "a", "--base_learning_rate=0.2")
    assert trajectory.start_of(child) == trajectory.start_of(parsed("--base_learning_rate=0.2"))


def test_values_that_contradict_each_other_are_refused(tmp_path):
    run_directories.write(tmp_path / "a")
    with pytest.raises(UserError, match="times the reference's noise scale"):
        child_of(tmp_path / "a", "--initial_batch_size=640", "--initial_learning_rate=0.1")


def test_a_fork_of_a_fork_is_of_its_own_parent(tmp_path):
    run_directories.write(tmp_path / "b", "--fork_from=somewhere@newest", "--seed=3")
    child = child_of(tmp_path / "b")
    assert (child.fork_from, child.seed) == (f"{tmp_path / 'b'}@newest", 3)


def test_another_anneal_leaves_the_flags_of_the_old_one_behind(tmp_path):
    flags = ["--anneal=step", "--anneal_epochs=50%", "--anneal_factor=3", "--weight_decay=0.1"]
    run_directories.write(tmp_path / "a", *flags)
    child = child_of(tmp_path / "a", "--anneal=cosine")
    assert (child.anneal_epochs, child.anneal_factor, child.weight_decay) == ((), 5.0, 0.1)
    trajectory.from_config(child, N, 1)
    assert child_of(tmp_path / "a", "--anneal=step").anneal_epochs == ("50%",)


def test_percentages_of_another_length_are_told(tmp_path, logged):
    run_directories.write(tmp_path / "a", "--anneal=step", "--anneal_epochs=50%,1.5")
    child_of(tmp_path / "a", "--epochs=2")
    assert logged == []
    child_of(tmp_path / "a", "--epochs=8")
    (line,) = logged
    assert line == (
        "--anneal_epochs=50%,1.5 now counts in 8 epochs: --anneal_epochs=1,1.5 keeps the points "
        "of 2 epochs"
    )
    child_of(tmp_path / "a", "--epochs=8", "--anneal_epochs=1")
    assert len(logged) == 1


@pytest.mark.parametrize(
    ("of_parent", "given", "expected"),
    [
        (["--momentum=0.98"], ["--optimizer=adamw"], (640, 0.1, 0.98)),
        (["--initial_batch_size=512"], ["--scaling=none"], (512, 0.4, 0.9)),
        (["--initial_batch_size=512"], ["--scaling=sqrt"], (512, 0.4, 0.9)),
        (["--initial_batch_size=512"], ["--base_learning_rate=0.1"], (512, 0.4, 0.9)),
        (
            ["--initial_batch_size=512"],
            ["--scaling=sqrt", "--initial_batch_size=1024"],
            (1024, 0.4 * 2**0.5, 0.9),
        ),
        (
            ["--momentum=0.98"],
            ["--optimizer=adamw", "--scaling=sqrt", "--initial_batch_size=1280"],
            (1280, 0.1 * 2**0.5, 0.98),
        ),
        ([], ["--optimizer=sgd"], (128, 1.0, 0.0)),
        ([], ["--optimizer=sgd", "--initial_batch_size=512"], (512, 4.0, 0.0)),
        (["--momentum=0.9"], ["--optimizer=sgd", "--momentum=0"], (32, 0.25, 0.0)),
        (["--optimizer=sgd"], ["--optimizer=momentum"], (128, 0.1, 0.0)),
        (["--optimizer=sgd"], ["--optimizer=momentum", "--momentum=0.9"], (1280, 0.1, 0.9)),
    ],
)
def test_the_start_follows_the_childs_own_rule(tmp_path, of_parent, given, expected):
    """Another optimizer or scaling has another rule, and still begins at the parent's start."""
    run_directories.write(tmp_path / "a", "--base_momentum=0.9", *of_parent)
    if of_parent == ["--optimizer=sgd"]:
        (tmp_path / "a/flags.txt").write_text(to_flagfile(parsed("--epochs=2", *of_parent)))
    child = child_of(tmp_path / "a", *given)
    found = trajectory.from_config(child, N, 1).start
    assert (found.batch_size, found.momentum) == (expected[0], expected[2])
    assert found.learning_rate == pytest.approx(expected[1])
    assert child.base_batch_size == 128


@pytest.mark.parametrize("command", ["sweep", "range_test"])
def test_other_commands_that_train_refuse_a_fork(tmp_path, command):
    recipe = tmp_path / "fork.flags"
    recipe.write_text("--fork_from=runs/a@newest\n")
    given = [f"--flagfile={recipe}"]
    with pytest.raises(UserError, match=f"is for plan and train, not for {command}"):
        fork_source.with_parent_flags(command, parse(command, given), given)
