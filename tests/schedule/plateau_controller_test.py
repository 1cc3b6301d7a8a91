import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainer.schedule.plateau_controller import PlateauController


def plateau(**rules):
    defaults = {"factor": 5.0, "min_improvement": 0.0, "patience": 2, "cooldown": 0}
    return PlateauController(**{**defaults, "max_anneals": 2, **rules})


def decisions(control, accuracies):
    """Returns the indices at which a step was taken, and the index at which the run ended."""
    steps = []
    for i, top1 in enumerate(accuracies):
        before = control.anneals
        said = control.evaluated(top1)
        assert (said is not None) == (control.anneals > before or control.ended)
        if control.anneals > before:
            steps.append(i)
        if control.ended:
            return steps, i
    return steps, None


def test_a_step_needs_patience_and_an_improvement_restarts_the_count():
    accuracies = [0.5, 0.5, 0.6, 0.6, 0.6, 0.6, 0.7, 0.7, 0.69, 0.7]
    assert decisions(plateau(), accuracies) == ([4, 8], None)


def test_the_plateau_after_the_last_step_ends_the_run():
    control = plateau(max_anneals=1)
    assert decisions(control, [0.5] * 9) == ([2], 4)
    assert control.noise_scale_factor() == 1 / 5


def test_the_noise_scale_factor_never_reaches_zero():
    control = plateau(factor=1e200)
    decisions(control, [0.5] * 9)
    assert control.noise_scale_factor() == 1e-9


def test_without_steps_the_first_plateau_ends_the_run():
    assert decisions(plateau(max_anneals=0), [0.5] * 9) == ([], 2)


def test_small_gains_do_not_count():
    accuracies = [0.500, 0.509, 0.510, 0.511]
    assert decisions(plateau(min_improvement=0.01), accuracies) == ([2], None)
    assert decisions(plateau(), accuracies) == ([], None)


def test_evaluations_in_the_cooldown_do_not_count_towards_the_patience():
    assert decisions(plateau(cooldown=3), [0.5] * 12) == ([2, 7], None)
    # An improvement in the cooldown is recorded, and uses up one evaluation of it.
    assert decisions(plateau(cooldown=3), [0.5, 0.5, 0.5, 0.6, *[0.6] * 6]) == ([2, 7], None)


def test_a_fork_with_fewer_steps_than_its_parent_took_ends_at_the_next_plateau():
    parent = plateau(max_anneals=7)
    decisions(parent, [0.5] * 15)
    for most in (0, 1, 7):
        fork = plateau(max_anneals=most)
        fork.take_over(parent.state_dict())
        assert "after 7 annealing steps, the run ends" in [fork.evaluated(0.5) for _ in "12"][-1]
        assert fork.ended


def test_a_decision_names_its_numbers():
    control = plateau(min_improvement=0.001)
    said = [control.evaluated(top1) for top1 in (0.9034, 0.9012, 0.9021)]
    assert said == [
        None,
        None,
        "top1 0.9021 is not above 0.9034 + 0.001 (evaluations without improvement: 2): "
        "annealing step 1 of 2, the noise scale is divided by 5",
    ]


@given(
    st.lists(st.integers(0, 5), max_size=40),
    st.integers(0, 40),
    st.integers(1, 4),
    st.integers(0, 4),
    st.integers(0, 3),
)
def test_decisions_continue_from_a_restored_state(accuracies, cut, patience, cooldown, max_anneals):
    rules = {"patience": patience, "cooldown": cooldown, "max_anneals": max_anneals}
    whole, first, second = plateau(**rules), plateau(**rules), plateau(**rules)
    assert whole.state_dict() == first.state_dict()
    said = [whole.evaluated(top1) for top1 in accuracies]
    before = [first.evaluated(top1) for top1 in accuracies[:cut]]
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert said == before + [second.evaluated(top1) for top1 in accuracies[cut:]]
    assert whole.state_dict() == second.state_dict()


@pytest.mark.filterwarnings("ignore:__array__ implementation")
@pytest.mark.parametrize("patience", [1, 3])
def test_steps_are_taken_when_keras_reduces_the_rate(patience):
    """Compares the steps with those of Keras' ReduceLROnPlateau.

    Keras' cooldown is one longer here, because it also counts the evaluation that ends a cooldown.
    """
    import keras
    import numpy as np

    rng = np.random.default_rng(patience)
    accuracies = np.round(np.cumsum(rng.normal(0.001, 0.01, 200)) + 0.5, 3).tolist()
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile(optimizer=keras.optimizers.SGD(1.0))
    callback = keras.callbacks.ReduceLROnPlateau(
        "top1", factor=0.5, patience=patience, mode="max", min_delta=0.004, cooldown=3
    )
    callback.set_model(model)
    callback.on_train_begin()
    wanted = []
    for i, top1 in enumerate(accuracies):
        before = float(model.optimizer.learning_rate.numpy())
        callback.on_epoch_end(i, {"top1": top1})
        if float(model.optimizer.learning_rate.numpy()) < before:
            wanted.append(i)
    control = plateau(min_improvement=0.004, patience=patience, cooldown=2, max_anneals=1000)
    assert decisions(control, accuracies)[0] == wanted
    assert len(wanted) > 3
