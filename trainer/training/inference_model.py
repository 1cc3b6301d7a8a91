"""Loads the model of a run's checkpoint as a plain Keras model for inference."""

import dataclasses
import pathlib
from collections.abc import Sequence

import keras
import tensorflow as tf

from trainer.config.flags import Config
from trainer.data.bad_examples import BadExamples
from trainer.data.class_names import logit_names
from trainer.nn.ghostify import unghostify
from trainer.run_dir import model_source
from trainer.run_dir.training_data import TrainingData
from trainer.training import setup


@dataclasses.dataclass(frozen=True, eq=False)
class InferenceModel:
    """A model for inference, and where it comes from.

    Attributes:
      model: model from images uint8 [b, h, w, c] to logits float32 [b, classes].
      data: properties of the training data.
      class_names: names of the classes that the model was trained on.
      path: path of the checkpoint.
      update: number of updates after which it was written.
    """

    model: keras.Model
    data: TrainingData
    class_names: Sequence[str]
    path: pathlib.Path
    update: int


def restore(config: Config, folder: pathlib.Path) -> InferenceModel:
    """Returns the model of the run in `folder`, from the checkpoint that --checkpoint names.

    Raises:
      UserError: if the checkpoint does not exist, or its training data differ from the run's.
    """
    bad = BadExamples(config.skip_bad_examples)
    strategy = tf.distribute.OneDeviceStrategy("CPU:0")
    # Inference does not use stochastic depth, and this program defines the layers for it. So these
    # layers are left out, and model.keras can be loaded without this program.
    for_inference = dataclasses.replace(config, drop_path=0.0)
    model, data, path, update = setup.restore(for_inference, folder, strategy, bad)
    unghostify(model)
    names = setup.class_names(config, data.class_names, data.classes)
    return InferenceModel(model, data, names, path, update)


def load(config: Config) -> keras.Model:
    """Returns the model of the run in --model_dir; its `class_names` has a name for each logit.

    Raises:
      UserError: if `restore` raises it, or --model_dir is not a run.
    """
    found = restore(config, model_source.run(config))
    found.model.class_names = tuple(logit_names(found.class_names, found.model.output_shape[-1]))
    return found.model
