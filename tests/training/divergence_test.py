import numpy as np
import pytest

from trainer.errors import NonFiniteLossError
from trainer.schedule.layout import Layout
from trainer.schedule.noise_scale import Setting
from trainer.schedule.stretch import Stretch
from trainer.training import divergence
from trainer.training.state import State
from trainer.training.update_metrics import UpdateMetrics


def stretch_of(updates, position):
    """Returns a stretch of batches of 128 examples, in which each learning rate is different."""
    settings = [Setting(128, 0.5 + update, 0.9) for update in range(updates)]
    return Stretch(position, tuple(settings), Layout(1, 128, 1))


def metrics_of(loss, norm):
    ones = np.ones(len(loss))
    return UpdateMetrics(np.array(loss), ones, np.array(norm), ones, ones, 1.0, None)


@pytest.mark.parametrize("first", [0, 90])
def test_the_message_numbers_the_update_as_metrics_jsonl_does(first):
    state = State(update=first, position=128 * first)
    metrics = metrics_of([1.0, 2.0, np.nan, np.nan], [1.0, 2.0, np.inf, 1.0])
    with pytest.raises(NonFiniteLossError) as error:
        divergence.check_updates(stretch_of(4, state.position), metrics, state)
    # These are the numbers of a training point that is logged after the third update.
    state.trained(stretch_of(3, state.position), metrics_of([1.0] * 3, [1.0] * 3))
    line, remedy = str(error.value).splitlines()
    assert line == (
        f"the loss is nan and the gradient's norm inf at update {state.update}, position "
        f"{state.position}, with learning rate 2.5 and batch size 128."
    )
    assert (state.update, state.setting["learning_rate"]) == (first + 3, 2.5)
    assert remedy == (
        "The checkpoints, if any, were written before. Start a new run in another --model_dir, "
        "with a lower learning rate, or with --warmup_epochs and a low --warmup_from."
    )


def test_finite_metrics_pass():
    divergence.check_updates(stretch_of(2, 0), metrics_of([1.0, 2.0], [0.0, 3.0]), State())
