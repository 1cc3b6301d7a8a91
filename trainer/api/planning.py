"""trainer.plan: what a run would do, as a dict."""

import os
from typing import Any

from trainer.api import arguments, calls, keras_backend
from trainer.errors import UserError
from trainer.schedule.trajectory import Trajectory


def plan(recipe: str | os.PathLike[str] | None = None, **flags: object) -> dict[str, Any]:
    """Returns what a run would do, without training; `plan --format=json` prints the same.

    Example:
      >>> trainer.plan("fashion_mnist_grow", epochs=8)["total_updates"]

    Args:
      recipe: name of a recipe, or path of a flagfile; None: the defaults of the flags.
      **flags: flags of `plan` without their dashes, such as epochs=2. They override the recipe's.
        `train_examples` is the number of your own examples. `plot` names a PNG file to draw.

    Returns:
      `examples` (N), `total_updates`, and `phases`: a list of dicts with `start_epoch`,
      `start_update`, `updates`, `batch_size` (examples), `learning_rate`, `momentum`,
      `noise_scale`, `micro_batch_size` (examples) and `accumulation` (micro-batches). Notes and
      predicted costs are there only if the command has them too.

    Raises:
      UserError: if a flag is unknown or wrong, flags contradict each other, or the number of
        training examples is not known.
    """
    keras_backend.prepare()
    from trainer.commands import plan as command  # The import takes half a second.

    words = arguments.words("trainer.plan", flags, recipe)
    with calls.configured("plan", words) as config:
        return command.as_json(config)


def trajectory(
    recipe: str | os.PathLike[str] | None = None, *, examples: int, **flags: object
) -> Trajectory:
    """Returns the schedule of a run, for a training loop of your own.

    Example:
      >>> schedule = trainer.trajectory("fashion_mnist_grow", examples=60_000)
      >>> schedule.at(position).batch_size

    Args:
      recipe: name of a recipe, or path of a flagfile; None: the defaults of the flags.
      examples: N, the number of training examples.
      **flags: flags of `plan` without their dashes, except for `plot`. They override the recipe's.

    Returns:
      A Trajectory. Its `at(position)` returns the Setting of the update that starts after
      `position` examples: `batch_size` in examples, `learning_rate` and `momentum`. Its `end` is
      the position at which the run ends.

    Raises:
      UserError: if a flag is unknown or wrong, or flags contradict each other.
    """
    from trainer.commands import plan as command

    if flags.get("plot") is not None:
        raise UserError("trainer.trajectory has no argument plot: trainer.plan draws the schedule.")
    words = arguments.words("trainer.trajectory", flags, recipe, ["examples"])
    words += arguments.words("trainer.trajectory", {"train_examples": examples})
    with calls.configured("plan", words) as config:
        schedule, _, _ = command.planned(config)
    return schedule
