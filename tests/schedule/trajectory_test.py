import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.configs import parsed, updates
from trainer.errors import UserError
from trainer.schedule.noise_scale import Setting, noise_scale
from trainer.schedule.trajectory import from_config, position_of


def trajectory(*arguments, examples=60_000, replicas=1):
    return from_config(parsed(*arguments), examples, replicas)


STEP = ("--anneal=step", "--anneal_epochs=30%,60%,80%", "--anneal_with=batch_size")


def test_updates_cover_the_run_and_only_the_last_reaches_its_end():
    run = trajectory(*STEP, "--epochs=3.3", examples=1_001)
    found = list(updates(run))
    ends = [position + setting.batch_size for position, setting in found]
    assert [position for position, _ in found] == [0, *ends[:-1]]
    assert ends[-2] < run.end == 3304 <= ends[-1]


def test_a_milestone_takes_effect_at_the_first_update_that_starts_at_or_after_it():
    run = trajectory(*STEP, "--epochs=10", "--max_batch_size=640", examples=1000)
    changes = [p for p, s in updates(run) if s.batch_size == 640]
    assert changes[0] == 3072  # 24 · 128 is the first multiple of 128 from 3,000 on.
    run = trajectory(*STEP, "--epochs=10", "--max_batch_size=640", examples=1280)
    assert next(p for p, s in updates(run) if s.batch_size == 640) == 3840  # This is exactly 30%.


def test_warm_up_changes_the_rate_alone():
    run = trajectory("--initial_batch_size=640", "--warmup_epochs=5")
    assert run.at(0) == Setting(640, pytest.approx(0.1), 0.9)  # The reference has 0.1.
    assert run.at(150_000).learning_rate == pytest.approx(0.3)
    assert run.at(300_000) == Setting(640, pytest.approx(0.5), 0.9)
    run = trajectory("--initial_batch_size=640", "--warmup_epochs=5", "--warmup_from=0.5")
    assert run.at(0).learning_rate == pytest.approx(0.25)


@pytest.mark.parametrize("shape", ["cosine", "polynomial", "exponential"])
def test_smooth_schedules_have_the_same_noise_scale_by_batch_as_by_rate(shape):
    length = ("--anneal_epochs=25%",) if shape == "exponential" else ()
    by_rate = trajectory(f"--anneal={shape}", *length)
    by_batch = trajectory(f"--anneal={shape}", *length, "--anneal_with=batch_size")
    for position, setting in updates(by_batch):
        wanted = noise_scale(by_rate.at(position), 60_000)
        assert noise_scale(setting, 60_000) == pytest.approx(wanted, rel=1e-9)
        assert setting.batch_size % 128 == 0
        assert setting.batch_size <= 5888  # 46 · 128 is the largest multiple up to N/10.
    assert setting.batch_size > 1000


def published(iteration, step_size, lowest, highest, scale):
    """Returns the rate of Smith 2015, section 3.2, with the names of its listing."""
    cycle = math.floor(1 + iteration / (2 * step_size))
    x = abs(iteration / step_size - 2 * cycle + 1)
    return lowest + (highest - lowest) * max(0, 1 - x) * scale(cycle, iteration)


@pytest.mark.parametrize(
    ("flags", "scale"),
    [
        ([], lambda cycle, iteration: 1),
        (["--cycle_factor=0.5"], lambda cycle, iteration: 1 / 2 ** (cycle - 1)),
        (["--cycle_factor=0.693"], lambda cycle, iteration: 0.693 ** (cycle - 1)),
        (
            ["--cycle_factor=0.999", "--cycle_factor_per=update"],
            lambda cycle, iteration: 0.999**iteration,
        ),
    ],
    ids=["triangular", "triangular2", "ln 2 a cycle", "exp_range"],
)
@pytest.mark.parametrize("cycle_epochs", [4.0, 0.7])
def test_cycles_equal_the_published_ones_at_every_update(flags, scale, cycle_epochs):
    run = trajectory("--anneal=cyclical", f"--cycle_epochs={cycle_epochs}", *flags, "--epochs=9")
    step_size = cycle_epochs / 2 * 60_000 / 128
    for iteration, (_, setting) in enumerate(updates(run)):
        wanted = published(iteration, step_size, 0.025, 0.1, scale)
        assert setting.learning_rate == pytest.approx(wanted, rel=1e-9)
        assert setting.batch_size == 128


def test_cycles_by_batch_have_the_same_noise_scale_as_by_rate():
    cycles = ("--anneal=cyclical", "--min_learning_rate=0.02", "--cycle_epochs=1", "--epochs=4")
    by_rate = trajectory(*cycles)
    by_batch = trajectory(*cycles, "--anneal_with=batch_size")
    sizes = [setting.batch_size for _, setting in updates(by_batch)]
    assert (sizes[0], min(sizes), max(sizes)) == (640, 128, 640)
    for position, setting in updates(by_batch):
        wanted = noise_scale(by_rate.at(position), 60_000)
        assert noise_scale(setting, 60_000) == pytest.approx(wanted, rel=1e-9)


@given(st.sampled_from([1, 2, 4]), st.sampled_from([32, 64]))
def test_replicas_do_not_change_the_settings(replicas, ghost):
    arguments = (*STEP, "--initial_batch_size=512", f"--ghost_batch_size={ghost}")
    alone = list(updates(trajectory(*arguments)))
    assert list(updates(trajectory(*arguments, replicas=replicas))) == alone


@pytest.mark.parametrize(
    ("arguments", "replicas", "message"),
    [
        (["--initial_batch_size=100"], 1, "initial batch size 100 is not a multiple of 1 replica "),
        (["--initial_batch_size=640"], 3, "of 3 replicas × ghost batch 32 = 96"),
        (["--max_batch_size=1000"], 1, "--max_batch_size=1000 is not a multiple"),
        (["--max_batch_size=64"], 1, "64 is below the initial batch size 128"),
        (["--max_batch_size=61440"], 1, "61440 is larger than the 60000 training examples"),
        (["--initial_batch_size=256", "--initial_learning_rate=0.1"], 1, "0.5 times the reference"),
        (["--anneal=step"], 1, r"=\(nothing\) does not fit --anneal=step: give one point or more"),
        (["--anneal=cosine", "--anneal_epochs=5"], 1, "=5 does not fit --anneal=cosine: leave"),
        (
            ["--anneal=cyclical", "--min_learning_rate=0.1"],
            1,
            "not below the initial learning rate",
        ),
        (["--anneal=cosine", "--anneal_with=hybrid"], 1, "hybrid counts annealing steps"),
        (["--scaling=none", "--anneal_with=batch_size"], 1, "use --anneal_with=learning_rate"),
        (["--anneal=range_test", "--warmup_epochs=1"], 1, "changes the learning rate alone"),
        (
            ["--anneal=range_test", "--momentum=0.95", "--momentum_warmup_epochs=1"],
            1,
            "changes the learning rate alone",
        ),
        (["--optimizer=sgd", "--momentum=0.9"], 1, "sgd cannot have a momentum of 0.9"),
        (["--micro_batch_size=16"], 1, "--micro_batch_size=16 is below"),
        # The solved size is 10¹⁸ · 1,280 examples, whose divisors must not be computed.
        (["--initial_learning_rate=1e18"], 3, "is larger than the 60000 training examples"),
        (
            ["--initial_learning_rate=1e18", "--momentum=0.98", "--momentum_warmup_epochs=1"],
            1,
            "is larger than the 60000 training examples",
        ),
    ],
)
def test_flags_that_contradict_each_other_are_rejected(arguments, replicas, message):
    with pytest.raises(UserError, match=message):
        trajectory(*arguments, replicas=replicas)


def test_the_replica_counts_in_the_message_fit_every_batch_size():
    # The sizes are 4 and 130 ghost batches: 128 and 4,160 examples.
    with pytest.raises(UserError, match="or one of 1, 2 replicas"):
        trajectory("--max_batch_size=4160", replicas=4)


@pytest.mark.parametrize(
    ("arguments", "examples", "message"),
    [
        (
            ["--max_batch_size=6400", "--anneal=cosine", "--anneal_with=batch_size"],
            60_000,
            "--max_batch_size=6400 is above N/10 = 6000: batches",
        ),
        (
            ["--initial_batch_size=32", "--anneal_with=batch_size"],  # --anneal=constant
            240,
            "a batch of 32 costs accuracy, because it is above N/10 = 24",
        ),
        (
            ["--initial_batch_size=32"],
            240,
            "because it is above N/10 = 24, a tenth of the 240 training images",
        ),
        (
            ["--initial_batch_size=32", "--anneal=cosine", "--anneal_with=batch_size"],
            240,
            "240 training images. The learning rate anneals instead. Use a smaller",
        ),
        (
            ["--initial_batch_size=32", "--anneal=measured"],
            240,
            "the schedule cannot grow the batch, because the initial batch of 32 is not below N/10 "
            "= 24, a tenth of the 240 training images. Use a smaller --initial_batch_size.",
        ),
        (
            ["--initial_learning_rate=0.025", "--anneal=cosine", "--anneal_with=batch_size"],
            639,
            "Lower --initial_learning_rate, or give --initial_batch_size in its place.",
        ),
        (
            ["--initial_batch_size=32", "--anneal=cosine", "--anneal_with=batch_size"],
            639,
            "no multiple of 32 lies between the initial batch of 32 and N/10 = 63, a tenth of the "
            "639 training images. The learning rate anneals instead. Use a smaller --initial_batch",
        ),
    ],
)
def test_a_batch_that_cannot_grow_or_is_above_a_tenth_of_the_examples_warns(
    caplog, arguments, examples, message
):
    trajectory(*arguments, "--ghost_batch_size=16", examples=examples)
    assert message in caplog.text


def test_a_maximum_that_no_batch_reaches_does_not_warn(caplog):
    trajectory("--max_batch_size=6400")
    trajectory("--max_batch_size=6400", "--anneal_with=batch_size")  # --anneal=constant
    grows = ["--initial_batch_size=32", "--anneal=cosine", "--anneal_with=batch_size"]
    trajectory(*grows, examples=640)
    trajectory(*grows, "--max_batch_size=32", examples=639)
    trajectory(*grows, "--anneal_with=learning_rate", examples=639)
    assert "N/10" not in caplog.text


@pytest.mark.parametrize(
    ("arguments", "remedy"),
    [
        (["--initial_batch_size=640"], "examples: lower --initial_batch_size. Take a batch of"),
        (["--initial_learning_rate=1"], "lower --initial_learning_rate, or give --initial_batch"),
        (["--momentum=0.98"], "examples: lower --momentum, or give --initial_batch_size. T"),
        (
            ["--base_batch_size=640"],
            "examples: give --initial_batch_size. Take a batch of at most 60",
        ),
        (["--max_batch_size=640"], "lower --max_batch_size. Take a batch of at most 60, a tenth"),
    ],
)
def test_a_batch_above_the_examples_is_refused_with_the_flag_that_made_it(arguments, remedy):
    with pytest.raises(UserError, match=remedy):
        trajectory(*arguments, examples=600)


def test_the_first_batch_of_a_momentum_warm_up_is_named():
    flags = ["--initial_batch_size=640", "--momentum=0.98", "--momentum_warmup_epochs=1"]
    with pytest.raises(
        UserError,
        match=r"^the first batch of the momentum warm-up, 32, is not a multiple of 2 replicas × "
        r"ghost batch 32 = 64.\nUse a higher --momentum_from, or leave --momentum_warmup_epochs "
        r"out, or --ghost_batch_size=16, or one replica.$",
    ):
        trajectory(*flags, "--momentum_from=0.5", replicas=2)
    trajectory(*flags, "--momentum_from=0.8", replicas=2)


def test_a_smaller_batch_that_is_recommended_is_not_refused(caplog):
    trajectory("--initial_batch_size=32", examples=240)
    assert "use a smaller --initial_batch_size and --ghost_batch_size." in caplog.text
    with pytest.raises(UserError, match=r"Use a batch of 32, or --ghost_batch_size=16\."):
        trajectory("--initial_batch_size=16", examples=240)
    trajectory("--initial_batch_size=16", "--ghost_batch_size=16", examples=240)


@pytest.mark.parametrize(
    ("arguments", "largest"),
    [
        (["--anneal=cosine"], 32),
        (["--anneal=cosine", "--anneal_with=batch_size"], 5984),
        (["--anneal=plateau", "--anneal_with=hybrid"], 5984),
        (["--anneal=measured", "--ghost_batch_size=16"], 5984),
        (["--momentum=0.95", "--momentum_warmup_epochs=1"], 64),
    ],
    ids=str,
)
def test_the_largest_batch_is_one_that_the_run_can_reach(arguments, largest):
    """Checks the size for which --micro_batch_size=0 measures micro-batches."""
    assert trajectory("--base_batch_size=32", *arguments).limits.largest == largest


def test_sgd_needs_no_base_momentum():
    assert trajectory("--optimizer=sgd").start == Setting(128, 0.1, 0.0)


def test_a_momentum_of_0_is_one_that_was_given():
    start = trajectory("--optimizer=sgd", "--momentum=0", "--base_momentum=0.9").start
    assert start == Setting(32, pytest.approx(0.25), 0.0)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "lars", "lamb"])
def test_other_optimizers_have_a_momentum(optimizer):
    assert trajectory(f"--optimizer={optimizer}").start == Setting(128, 0.1, 0.9)
    start = trajectory(f"--optimizer={optimizer}", "--base_momentum=0.8").start
    assert start == Setting(128, 0.1, 0.8)


def test_a_run_has_at_least_one_update():
    assert len(list(updates(trajectory("--epochs=1e-9")))) == 1


def test_position_of_forgives_rounding():
    assert position_of(0.3 * 3, 1000) == 900  # 0.8999999999999999
    assert position_of(1.0005, 1000) == 1001
