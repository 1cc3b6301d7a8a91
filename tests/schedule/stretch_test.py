from hypothesis import given
from hypothesis import strategies as st

from tests.support.configs import parsed, updates
from trainer.schedule.stretch import next_stretch
from trainer.schedule.trajectory import from_config

FLAGS = (
    "--anneal=step",
    "--anneal_epochs=30%,60%,80%",
    "--anneal_with=batch_size",
    "--epochs=4.7",
    "--warmup_epochs=1",
)


@given(st.integers(1, 40), st.integers(100, 3000))
def test_stretches_hold_the_updates_of_the_trajectory(most, every):
    run = from_config(parsed(*FLAGS), 3001, 1)
    position, found = 0, []
    while position < run.end:
        until = min(run.end, (position // every + 1) * every)
        stretch = next_stretch(
            run,
            position,
            until=until,
            most_updates=most,
            replicas=1,
            ghost_batch_size=32,
            micro_batch_size=64,
        )
        size = stretch.batch_size
        assert 1 <= len(stretch.settings) <= most
        assert stretch.layout.micro_batch_size * stretch.layout.accumulation == size
        assert stretch.end - size < until  # Only the last update reaches `until`.
        found += [(position + i * size, s) for i, s in enumerate(stretch.settings)]
        position = stretch.end
    assert found == list(updates(run))
