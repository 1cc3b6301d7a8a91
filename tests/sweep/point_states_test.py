"""States of points that other machines may train."""

import threading
import time

import pytest

from trainer.buckets.objects import UnavailableError
from trainer.errors import TryAgainError
from trainer.sweep import point_states
from trainer.sweep.point_states import PointStates
from trainer.sweep.sweep_folder import State


@pytest.fixture
def states():
    """states(answer) → the states of points, by a function in place of the bucket."""
    made = []

    def make(answer):
        made.append(PointStates(answer, "gs://bucket/x"))
        return made[-1]

    yield make
    for each in made:
        each.close()


def settled(found, name):
    """The first state that is known."""
    for _ in range(200):
        if (state := found.state(name)) is not State.UNKNOWN:
            return state
        time.sleep(0.01)
    return State.UNKNOWN


def test_a_point_is_unknown_until_the_bucket_answers(states):
    answered = threading.Event()
    found = states(lambda name: answered.wait(10) and name == "free")
    assert [found.state("free"), found.state("busy")] == [State.UNKNOWN, State.UNKNOWN]
    answered.set()
    assert settled(found, "free") is State.FREE
    assert settled(found, "busy") is State.BUSY


def test_an_answer_that_nobody_took_in_time_is_asked_for_again(states, monkeypatch):
    monkeypatch.setitem(point_states._COUNTS, State.FREE, 0.2)
    asked = []
    found = states(lambda name: asked.append(name) is None)
    found.state("seed=0")
    time.sleep(0.5)  # The sweep was busy with other points.
    assert found.state("seed=0") is State.UNKNOWN
    assert settled(found, "seed=0") is State.FREE
    assert len(asked) == 2


def test_a_bucket_that_stays_away_is_told_and_given_up(states, monkeypatch, logged):
    monkeypatch.setattr(point_states, "_PATIENCE", 0.1)
    monkeypatch.setitem(point_states._COUNTS, State.UNKNOWN, 0.05)

    def away(name):
        raise UnavailableError("no route")

    found = states(away)
    with pytest.raises(TryAgainError, match="gs://bucket/x cannot be reached: no route"):
        settled(found, "seed=0")
    assert len(logged) == 1
