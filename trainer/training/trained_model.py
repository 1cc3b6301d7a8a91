"""Loads the trained model of a run or an export, to evaluate it or to predict with it."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence

import tensorflow as tf

from trainer.config.flags import Config
from trainer.data.bad_examples import BadExamples
from trainer.errors import UserError
from trainer.nn.losses import Loss
from trainer.run_dir import checkpoint_choice, exports
from trainer.schedule.averaging import PLAIN, evaluated_with
from trainer.training import setup


@dataclasses.dataclass(frozen=True, eq=False)
class TrainedModel:
    """A model for inference, and its properties.

    Attributes:
      model: a function (images uint8 [b, h, w, c], training=False) → float32 logits [b, classes].
      image_shape: (h, w, c) in pixels.
      classes: number of logits.
      class_names: names of the first logits; --num_classes may have added more logits.
      path: path of the checkpoint or export.
      update: number of updates after which the model was saved.
      choice: line to print; it names the path and the best evaluation of the run.
      loss: loss function of the run, which turns logits into probabilities.
      evaluated_with: "ema" if the model has the average of the parameters, "plain" if it has the
        parameters themselves; None if the run does not average.
    """

    model: Callable[..., tf.Tensor]
    image_shape: tuple[int, int, int]
    classes: int
    class_names: Sequence[str]
    path: pathlib.Path
    update: int
    choice: str
    loss: Loss
    evaluated_with: str | None = None


def load(
    config: Config, folder: pathlib.Path, strategy: tf.distribute.Strategy, bad: BadExamples
) -> TrainedModel:
    """Loads the export in --export_dir, or else the checkpoint of a run that --checkpoint names.

    Args:
      config: flags of the command, and those that the run or export keeps.
      folder: folder of the run or export.
      strategy: strategy whose devices compute the model.
      bad: records examples that cannot be decoded. It is used only if the run does not keep the
        statistics of the training set. Otherwise, this function does not read the training set.

    Raises:
      UserError: if the model or its class names cannot be read.
    """
    loss = Loss.from_config(config)
    if config.export_dir:
        path = pathlib.Path(config.export_dir)
        about = exports.about(folder)
        _check_holds(config, path, about.evaluated_with or PLAIN)
        # An export does not record how many of its logits --num_classes added.
        learned = None if config.num_classes else about.classes
        with strategy.scope():
            model = exports.load(path)
        names = setup.class_names(config, about.class_names, learned)
        choice = checkpoint_choice.describe_export(path, about)
        shape, logits, counts = about.image_shape, about.classes, about.evaluated_with
        return TrainedModel(model, shape, logits, names, path, about.update, choice, loss, counts)
    model, data, path, update = setup.restore(config, folder, strategy, bad)
    names = setup.class_names(config, data.class_names, data.classes)
    checkpoints = folder / "checkpoints"
    best = checkpoint_choice.best(checkpoints, path)
    counts = evaluated_with(config) if config.ema_decay is not None else None
    choice = checkpoint_choice.describe_run(checkpoints, path, update, best, counts)
    shape, logits = model.input_shape[1:], model.output_shape[-1]
    return TrainedModel(model, shape, logits, names, path, update, choice, loss, counts)


def _check_holds(config: Config, path: pathlib.Path, held: str) -> None:
    """Raises UserError if --evaluate_with differs from `held`, the parameters in the export."""
    if config.evaluate_with not in (None, held):
        raise UserError(
            f"--evaluate_with={config.evaluate_with}, but the export {path} holds {held}.\n"
            "Leave the flag out, or export the run again with it."
        )
