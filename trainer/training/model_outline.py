"""Builds the model of a run for the command `plan`, without reading an image.

The model has the layers and the shapes of the run's model. It standardises images with a mean of 0
and a standard deviation of 1, because the true values are not known.
"""

import dataclasses

import keras
import tensorflow as tf

from trainer.config.flags import Config
from trainer.config.model_flags import FLOAT32
from trainer.data import sources
from trainer.errors import UserError
from trainer.run_dir.training_data import TrainingData
from trainer.training import setup

# Assumed number of classes if the data are not on this machine. Only the last layer depends on it.
_SOME_CLASSES = 10


def build(config: Config) -> keras.Model:
    """Returns the model of the run, with initial weights.

    Raises:
      UserError: if the model or the dataset does not exist, or --image_size is needed and missing.
    """
    shape = sources.image_shape(config.dataset, config.data_dir, config.model_image_size)
    channels = shape[-1]
    data = TrainingData(1, shape, _classes(config), mean=(0.0,) * channels, std=(1.0,) * channels)
    # `plan` does not choose a precision. The layers and their shapes do not depend on it.
    config = dataclasses.replace(config, precision=FLOAT32)
    return setup.build(config, data, tf.distribute.OneDeviceStrategy("CPU:0"))


def _classes(config: Config) -> int:
    """Returns the number of classes of the training split.

    If the split is not on this machine, returns --num_classes, or 10 if that flag is not set.
    """
    try:
        return len(sources.class_names(config.dataset, config.train_split, config.data_dir))
    except UserError:
        if config.train_examples is None:
            raise
        return config.num_classes or _SOME_CLASSES
