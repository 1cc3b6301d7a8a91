"""Divergence: the error that ends a run whose loss, gradient or parameters are not finite."""

import math

import numpy as np

from trainer.errors import NonFiniteLossError
from trainer.schedule.noise_scale import Setting
from trainer.schedule.stretch import Stretch
from trainer.training.evaluation import Evaluation
from trainer.training.state import State
from trainer.training.update_metrics import UpdateMetrics


def check_updates(stretch: Stretch, metrics: UpdateMetrics, state: State) -> None:
    """Checks the losses and gradients of a stretch that begins at `state`.

    Raises:
      NonFiniteLossError: if an update's loss or gradient norm is not finite; names the first one.
    """
    finite = np.isfinite(metrics.loss) & np.isfinite(metrics.gradient_norm)
    if finite.all():
        return
    bad = int(np.argmin(finite))
    what = (
        f"the loss is {metrics.loss[bad]:g} and the gradient's norm {metrics.gradient_norm[bad]:g}"
    )
    position = stretch.position + bad * stretch.batch_size
    raise _error(f"{what} at", state.update + bad, position, stretch.settings[bad])


def check_evaluation(evaluation: Evaluation, state: State) -> None:
    """Checks the loss of an evaluation at `state`.

    Raises:
      NonFiniteLossError: if the loss is not finite.
    """
    if not math.isfinite(evaluation.loss):
        raise error_after(f"the evaluation's loss is {evaluation.loss:g}", state)


def error_after(what: str, state: State) -> NonFiniteLossError:
    """Returns the error of a run in which `what` happened after the last update of `state`."""
    setting = Setting(**state.setting)
    return _error(f"{what} after", state.update, state.position, setting)


def _error(what: str, update: int, position: int, setting: Setting) -> NonFiniteLossError:
    return NonFiniteLossError(
        f"{what} update {update}, position {position}, with learning rate "
        f"{setting.learning_rate:g} and batch size {setting.batch_size}.\n"
        "All checkpoints are from before this. In a new --model_dir, lower the learning rate or "
        "lengthen --warmup_epochs."
    )
