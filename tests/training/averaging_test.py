"""The average on the devices: its closed form, layouts, frozen layers, evaluation and sharing."""

import contextlib
import functools
import itertools
import types

import numpy as np
import pytest
import tensorflow as tf

from tests.support.steps import (
    IMAGES,
    LABELS,
    averaging_step,
    devices,
    iterator_from,
    run,
    step_on,
    strategy_of,
    tiny,
    weights,
)
from trainer.data.in_memory import InMemoryDataset
from trainer.nn.freezing import freeze
from trainer.schedule.layout import Layout
from trainer.schedule.noise_scale import Setting
from trainer.schedule.stretch import Stretch
from trainer.training.averaging import ModelAverage, evaluate
from trainer.training.evaluation import Evaluation, Evaluations, Evaluator
from trainer.training.phases import Phases
from trainer.training.state import State, share

DECAY, BASE = 0.8, 64
# The batch grows by 5.
GROWTH = [(64, 0.3, 0.9)] * 4 + [(320, 0.3, 0.9)] * 2


def averages(step):
    return [variable.numpy() for variable in step.average.variables]


def history(step, updates, b=64):
    """Trains updates one by one; returns the position and the weights after each."""
    iterator, position, found = iterator_from(0, b), 0, []
    for size, rate, momentum in updates:
        layout = Layout(1, b, size // b)
        stretch = Stretch(position, (Setting(size, rate, momentum),), layout)
        step.run(iterator, stretch)
        position = stretch.end
        found.append((position, weights(step)))
    return found


def closed_form(seen, start=0):
    """Returns Σ (d^((p − end)/B₀) − d^((p − begin)/B₀)) · θ / (1 − d^(p/B₀)) over the updates."""
    ends = [position for position, _ in seen]
    begins = [start, *ends[:-1]]
    last = ends[-1]
    shares = [
        DECAY ** ((last - end) / BASE) - DECAY ** ((last - begin) / BASE)
        for begin, end in zip(begins, ends, strict=True)
    ]
    assert sum(shares) == pytest.approx(1 - DECAY ** ((last - start) / BASE))
    values = zip(*(found for _, found in seen), strict=True)
    return [np.average(np.stack(each), axis=0, weights=shares) for each in values]


def averaging(strategy, **options):
    return averaging_step(strategy, decay=DECAY, base_batch_size=BASE, **options)


@pytest.fixture(scope="module")
def wanted():
    """The averages by their closed form, from updates one by one."""
    return closed_form(history(averaging(strategy_of(devices(), 1)), GROWTH))


@pytest.fixture(scope="module", params=[(1, 32, 2), (4, 16, 1)], ids="replicas={0[0]}".format)
def trained(request):
    """A step after GROWTH, in one stretch for each batch size."""
    replicas, b, lanes = request.param
    step = averaging(strategy_of(devices(), replicas), lanes=lanes)
    run(step, b, GROWTH)
    return step


def test_the_average_equals_its_closed_form_through_growth_in_each_layout(trained, wanted):
    for ours, theirs, now in zip(averages(trained), wanted, weights(trained), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-5)
        assert np.abs(ours - now).max() > 1e-4  # It lags behind the parameters.
    for variable in trained.average.variables:
        first, *others = trained.strategy.experimental_local_results(variable)
        assert len(others) == trained.strategy.num_replicas_in_sync - 1
        for copy in others:
            np.testing.assert_array_equal(copy, first)


def test_frozen_layers_equal_their_average_and_join_it_when_they_train(cpus):
    """The average of a layer that trains later is that of its values from position 0 on."""
    strategy = strategy_of(cpus, 1)
    with strategy.scope():
        model = tiny(ghost=16)
    average = ModelAverage(strategy, model, decay=DECAY, base_batch_size=BASE)
    frozen = freeze(model, "(?!dense)")
    new_step = functools.partial(step_on, strategy, lambda: model, average=average)
    phases = Phases(new_step, frozen, 128, new_step())
    assert phases.variables()["averages"] is average.variables
    begin = weights(phases.step)
    seen = history(phases.step, [(64, 0.3, 0.9)] * 2)
    names = [weight.path for weight in model.weights]
    for name, ours, theirs, first in zip(
        names, averages(phases.step), closed_form(seen), begin, strict=True
    ):
        np.testing.assert_allclose(ours, theirs, atol=1e-6, err_msg=name)
        if not name.split("/")[-2].startswith("dense"):
            np.testing.assert_array_equal(ours, first, err_msg=name)
    assert phases.move_to(128)
    assert phases.step.average is average
    iterator, position = iterator_from(128, 64), 128
    for _ in range(2):
        stretch = Stretch(position, (Setting(320, 0.3, 0.9),), Layout(1, 64, 5))
        phases.step.run(iterator, stretch)
        position = stretch.end
        seen.append((position, weights(phases.step)))
    for ours, theirs in zip(averages(phases.step), closed_form(seen), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-6)


def test_the_average_is_evaluated_in_place_of_the_parameters(trained):
    step, before = trained, (weights(trained), averages(trained))
    names = ("a", "b", "c")
    source = InMemoryDataset(images=IMAGES, labels=LABELS, class_names=names, name="random")
    evaluator = Evaluator(step.strategy, step.model, source)
    found = {
        counts: (evaluate(evaluator, step.average, counts, lambda: False), evaluator.predictions())
        for counts in ("plain", "ema")
    }
    plain, ema = (found[counts][0] for counts in ("plain", "ema"))
    assert (plain.plain, plain.ema) == (ema.plain, ema.ema)
    assert plain.plain.loss != plain.ema.loss
    assert (plain.counted, ema.counted) == (plain.plain, plain.ema)
    for evaluations, predictions in found.values():
        assert predictions.losses.mean() == pytest.approx(evaluations.counted.loss, rel=1e-5)
    # The losses are those of a model that has the averages as its weights.
    other = tiny(ghost=16)
    for weight, value in zip(other.weights, before[1], strict=True):
        weight.assign(value)
    alone = Evaluator(strategy_of(devices(), 1), other, source).evaluate()
    assert ema.ema.loss == pytest.approx(alone.loss, rel=1e-6)
    # Told to stop, or after an error, it leaves all as it was.
    assert evaluate(evaluator, step.average, "plain", lambda: True) is None
    with contextlib.suppress(ZeroDivisionError), step.average.in_model():
        for ours, theirs in zip(weights(step), before[1], strict=True):
            np.testing.assert_array_equal(ours, theirs)
        raise ZeroDivisionError
    for now, then in zip((weights(step), averages(step)), before, strict=True):
        for ours, theirs in zip(now, then, strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_a_run_without_an_average_is_evaluated_once(cpus):
    step = step_on(strategy_of(cpus, 1))
    calls = []
    evaluator = types.SimpleNamespace(evaluate=lambda stop: calls.append(stop) or GOOD)
    found = evaluate(evaluator, step.average, "plain", None)
    assert (found, len(calls)) == (Evaluations(GOOD), 1)
    assert found.counted == GOOD
    assert found.mark == {}


GOOD, BETTER = Evaluation(1.0, 0.5, 0.9), Evaluation(0.9, 0.6, 0.9)


def test_the_state_keeps_what_counts_and_both():
    state = State(position=640, update=5)
    state.evaluated(Evaluations(GOOD, BETTER, "ema"))
    assert state.evaluation["top1"] == 0.6
    assert (state.evaluation["plain"]["top1"], state.evaluation["ema"]["top1"]) == (0.5, 0.6)
    assert state.best == {"top1": 0.6, "update": 5, "evaluated_with": "ema"}
    state.update = 6
    state.evaluated(Evaluations(BETTER, GOOD, "ema"))
    assert state.best["update"] == 5
    # A resumed run may count the plain parameters, and then chooses among those alone.
    state.update = 7
    state.evaluated(Evaluations(GOOD, BETTER, "plain"))
    assert state.best == {"top1": 0.5, "update": 7, "evaluated_with": "plain"}


def test_a_state_without_an_average_is_as_ever():
    state = State(position=640, update=5)
    state.evaluated(Evaluations(GOOD))
    assert state.evaluation == {"position": 640, "loss": 1.0, "top1": 0.5, "top5": 0.9}
    assert state.best == {"top1": 0.5, "update": 5}


def test_workers_take_the_chiefs_averages(cpus):
    step = averaging(strategy_of(cpus, 1))
    phases = Phases(lambda: step, [], None, step)
    variables = [*itertools.chain(*phases.variables().values())]
    assert len(variables) == 2 * len(step.model.weights) + len(tf.nest.flatten(step.slots))
    wanted = [np.full(variable.shape, 0.25 + i) for i, variable in enumerate(variables)]
    values = iter(wanted)
    group = types.SimpleNamespace(
        count=2, broadcast_text=lambda text: text, broadcast=lambda _: next(values)
    )
    share(State(), phases, group)
    for ours, theirs in zip(averages(step), wanted[-len(averages(step)) :], strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_averages_that_overflow_are_not_finite(cpus):
    step = averaging(strategy_of(cpus, 1))
    assert step.finite()
    step.average.variables[0].assign(tf.fill(step.average.variables[0].shape, np.inf))
    assert not step.finite()
