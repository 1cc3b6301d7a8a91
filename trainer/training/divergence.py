"""Ends a run with an error if its loss, its gradient or its parameters are not finite."""

import math

import numpy as np

from trainer.errors import NonFiniteLossError
from trainer.schedule.noise_scale import Setting
from trainer.schedule.stretch import Stretch
from trainer.training.evaluation import Evaluations
from trainer.training.state import State
from trainer.training.update_metrics import UpdateMetrics


def check_updates(stretch: Stretch, metrics: UpdateMetrics, state: State) -> None:
    """Checks that the losses and gradients of a stretch, a series of updates, are finite.

    `state` is the state before the stretch.

    Raises:
      NonFiniteLossError: if a loss or a gradient norm is not finite. The message names the first
        update with such a value.
    """
    finite = np.isfinite(metrics.loss) & np.isfinite(metrics.gradient_norm)
    if finite.all():
        return
    bad = int(np.argmin(finite))
    loss, norm = metrics.loss[bad], metrics.gradient_norm[bad]
    what = f"the loss is {loss:g} and the gradient's norm {norm:g} at"
    # As in metrics.jsonl, updates are numbered from 1, and `position` is measured after the update.
    done = bad + 1
    position = stretch.position + done * stretch.batch_size
    raise _error(what, state.update + done, position, stretch.settings[bad])


def check_evaluations(evaluations: Evaluations, state: State) -> None:
    """Checks that the losses of `evaluations`, which were made at `state`, are finite.

    Raises:
      NonFiniteLossError: if a loss is not finite.
    """
    for what, evaluation in (
        ("", evaluations.plain),
        (" of the averaged parameters", evaluations.ema),
    ):
        if evaluation and not math.isfinite(evaluation.loss):
            raise error_after(f"the evaluation loss{what} is {evaluation.loss:g}", state)


def error_after(what: str, state: State) -> NonFiniteLossError:
    """Returns the error for the problem `what`, found after the last update of `state`."""
    return _error(f"{what} after", state.update, state.position, Setting(**state.setting))


def _error(what: str, update: int, position: int, setting: Setting) -> NonFiniteLossError:
    return NonFiniteLossError(
        f"{what} update {update}, position {position}, with learning rate "
        f"{setting.learning_rate:g} and batch size {setting.batch_size}.\n"
        "The checkpoints, if any, were written before. Start a new run in another --model_dir, "
        "with a lower learning rate, or with --warmup_epochs and a low --warmup_from."
    )
