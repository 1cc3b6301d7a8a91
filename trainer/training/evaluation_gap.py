"""Warning about an evaluation loss that is far above the training loss, with its likely reason."""

import math

from trainer.config.flags import Config
from trainer.nn.losses import Loss
from trainer.training.evaluation import Evaluation


def warning(
    config: Config,
    evaluation: Evaluation,
    training_loss: float,
    classes: int,
    *,
    batch_norm: bool,
) -> str | None:
    """Returns a warning if the evaluation loss is much higher than the training loss, else None.

    A range test has no warning, because it raises the learning rate until training fails.

    Args:
      config: flags of the run.
      evaluation: the last evaluation of the parameters that are trained, not of their average.
      training_loss: mean training loss of the last stretch, a series of updates.
      classes: number of the model's logits.
      batch_norm: whether training updates moving statistics of the model.
    """
    found, chance = evaluation.loss, Loss.from_config(config).at_chance(max(2, classes))
    if config.anneal == "range_test" or found < 10 * training_loss or found < 2 * chance:
        return None
    if (config.class_weights, config.sampling) != (None, "shuffled"):
        reason = (
            "the model fits only the few training images of small classes; also, the training loss "
            "gives classes other weights than the evaluation loss"
        )
    elif batch_norm:
        reason = (
            "the moving statistics of batch normalization lag behind parameters that change fast: "
            "lower the learning rate, or train for more epochs"
        )
    else:
        reason = (
            "the model fits only the training images, or the two splits differ in their images "
            "or classes"
        )
    times = found / training_loss if training_loss else math.inf
    return (
        f"the evaluation loss, {found:.4g}, is {times:.0f} times the training loss, "
        f"{training_loss:.4g}; likely, {reason}."
    )
