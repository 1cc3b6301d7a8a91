import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.errors import UserError
from trainer.schedule.layout import Layout, divisors, lay_out


@given(
    replicas=st.integers(1, 16),
    ghost=st.integers(1, 128),
    ghosts=st.integers(1, 500),
    most_ghosts=st.integers(1, 600),
)
def test_the_micro_batch_is_the_largest_that_fits(replicas, ghost, ghosts, most_ghosts):
    batch_size, most = replicas * ghost * ghosts, most_ghosts * ghost
    layout = lay_out(batch_size, replicas, ghost, most)
    b = layout.micro_batch_size
    assert replicas * b * layout.accumulation == batch_size
    share = batch_size // replicas
    fits = [n for n in range(1, most + 1) if share % n == 0 and n % ghost == 0]
    assert b == max(fits)


def test_an_indivisible_batch_is_rejected_with_sizes_and_replica_counts_that_fit():
    with pytest.raises(
        UserError, match=r"batch of 576 or 672, or one of 1, 2, 4, 5, 10, 20 replicas"
    ):
        lay_out(640, 3, 32, 128)
    with pytest.raises(UserError, match=r"= 96.\nUse a batch of 96\."):
        lay_out(50, 3, 32, 128)


def test_a_micro_batch_below_the_ghost_batch_is_rejected():
    with pytest.raises(UserError, match="--micro_batch_size=16 is below --ghost_batch_size=32"):
        lay_out(128, 1, 32, 16)


def test_a_batch_of_one_ghost_batch_is_one_micro_batch():
    assert lay_out(32, 1, 32, 128) == Layout(1, 32, 1)


@given(st.integers(1, 3000))
def test_divisors_are_complete_and_ascending(n):
    assert divisors(n) == [d for d in range(1, n + 1) if n % d == 0]
