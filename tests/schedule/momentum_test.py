import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.configs import parsed, updates
from trainer.errors import UserError
from trainer.schedule.momentum import first_batch, warmup
from trainer.schedule.noise_scale import Setting, noise_scale
from trainer.schedule.realize import BatchLimits
from trainer.schedule.trajectory import from_config

START = Setting(3200, 0.5, 0.98)
RECIPE = ("--flagfile=flags/fashion_mnist_decay.flags", "--initial_learning_rate=0.5")
HIGH = (*RECIPE, "--momentum=0.98", "--anneal_with=batch_size", "--max_batch_size=5120")


def test_the_first_batch_has_the_noise_scale_and_rate_at_the_lower_momentum():
    assert first_batch(START, 0.9, 32) == 640
    # 711 does not divide 3,200; 640 is the next size below that does.
    assert first_batch(START, 0.91, 32) == 640
    assert first_batch(Setting(64, 0.1, 0.99), 0.0, 32) == 32
    # At 112, m would be 0. The next size below is 32, which would need m = −2.5.
    assert first_batch(Setting(1120, 0.1, 0.9), 0.0, 32) == 160
    assert first_batch(START, 0.98, 32) == 3200


@given(
    st.integers(1, 300), st.integers(1, 64), st.floats(0, 0.999), st.floats(0, 1, exclude_max=True)
)
def test_the_momentum_of_a_warm_up_is_between_zero_and_its_final_value(
    ghosts, ghost, momentum, share
):
    start = Setting(ghosts * ghost, 0.1, momentum)
    smallest = first_batch(start, share * momentum, ghost)
    assert smallest % ghost == start.batch_size % smallest == 0
    at = warmup(1.0, start, BatchLimits(smallest, start.batch_size, 0.0))
    assert 0 <= at(0.0) <= momentum + 1e-9


@given(st.floats(0.1, 10), st.floats(0, 12), st.sampled_from([64, 320, 640, 1600]))
def test_the_batch_of_a_warm_up_is_a_multiple_of_the_smallest(length, epochs, smallest):
    limits = BatchLimits(smallest, 5120, 0.0)
    size = START.batch_size * (1 - START.momentum) / (1 - warmup(length, START, limits)(epochs))
    assert size == pytest.approx(round(size))
    assert round(size) % smallest == 0
    assert smallest <= round(size) <= 3200


@given(st.integers(1, 50), st.integers(2, 12), st.integers(1, 10**7))
def test_a_step_is_taken_at_the_first_position_that_reaches_it(tenths, steps, examples):
    """Covers rounding: in floats, 128 + 640 · (0.94 / 4.7) is less than 256."""
    start = Setting(128 * steps, 0.1, 0.9)
    at = warmup(tenths / 10, start, BatchLimits(128, 10**6, 0.0))
    for step in range(1, steps):
        first = -(-step * tenths * examples // (10 * (steps - 1)))  # exact in integers
        assert at(first / examples) >= 1 - 0.1 * steps / (step + 1) - 1e-9


def test_a_warm_up_raises_momentum_and_batch_at_constant_noise_scale_and_rate():
    run = from_config(parsed(*HIGH, "--momentum_warmup_epochs=4"), 60_000, 1)
    early = [setting for position, setting in updates(run) if position < 4.5 * 60_000]
    found = [(s.batch_size, round(s.momentum, 6)) for s, _ in itertools.groupby(early)]
    assert found == [(640, 0.9), (1280, 0.95), (1920, 0.966667), (2560, 0.975), (3200, 0.98)]
    for setting in early:
        assert setting.learning_rate == 0.5
        assert noise_scale(setting, 60_000) == pytest.approx(noise_scale(START, 60_000))


def test_the_momentum_falls_before_the_rate():
    run = from_config(parsed(*HIGH, "--momentum_to=0.9"), 60_000, 1)
    found = [setting for setting, _ in itertools.groupby(s for _, s in updates(run))]
    first, second, third, last = found
    assert first == START
    # Step one, ÷5: the batch gives 5,120 / 3,200 = 1.6 and the momentum 3.125.
    assert (second.batch_size, second.learning_rate) == (5120, 0.5)
    assert second.momentum == pytest.approx(1 - 0.02 * 3.125)
    # Step two, ÷5: the momentum gives 1.6, which takes it to 0.9, and the rate gives 3.125.
    assert (third.batch_size, third.momentum) == (5120, pytest.approx(0.9))
    assert third.learning_rate == pytest.approx(0.5 / 3.125)
    assert last.learning_rate == pytest.approx(0.5 / 3.125 / 5)
    for setting, factor in zip(found, (1, 5, 25, 125), strict=True):
        wanted = noise_scale(START, 60_000) / factor
        assert noise_scale(setting, 60_000) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ["--momentum_warmup_epochs=4", "--momentum_from=0.98"],
            "has nothing to warm up from 0.98",
        ),
        (["--momentum_warmup_epochs=4", "--momentum=0.9"], "has nothing to warm up from 0.9"),
        (
            ["--momentum_warmup_epochs=4", "--anneal=measured", "--anneal_epochs="],
            "with --anneal=measured",
        ),
        (["--momentum_warmup_epochs=4", "--optimizer=adam"], "another optimizer than adam"),
        (["--momentum_warmup_epochs=4", "--scaling=sqrt"], "use --scaling=linear, or leave"),
        (
            ["--momentum_warmup_epochs=4", "--initial_batch_size=3200", "--ghost_batch_size=33"],
            "33",
        ),
        (["--momentum_from=0.5"], "needs a warm-up: set --momentum_warmup_epochs"),
        (["--momentum_to=0.99"], "give a lower --momentum_to"),
        (["--momentum_to=0.9", "--anneal_with=learning_rate"], "and --anneal_with=batch_size"),
        (["--momentum_to=0.9", "--optimizer=lamb"], "another optimizer than lamb"),
        (["--momentum_to=0", "--optimizer=adam"], "another optimizer than adam"),
        (["--momentum_to=0", "--optimizer=adamw"], "another optimizer than adamw"),
    ],
)
def test_impossible_changes_of_momentum_are_rejected(flags, message):
    with pytest.raises(UserError, match=message):
        from_config(parsed(*HIGH, *flags), 60_000, 1)
