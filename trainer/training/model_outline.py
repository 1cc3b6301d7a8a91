"""Builds the model of a run that is planned, without reading an image.

The model has the layers and the shapes of the run's model. Its standardisation is arbitrary.
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

# Stands for the number of classes if the data are elsewhere; no other layer depends on it.
_SOME_CLASSES = 10


def build(config: Config) -> keras.Model:
    """Returns the model of the run, with initial weights.

    Raises:
      UserError: if the model or the dataset does not exist, or --image_size is needed and missing.
    """
    shape = sources.image_shape(config.dataset, config.data_dir, config.model_image_size)
    channels = shape[-1]
    data = TrainingData(1, shape, _classes(config), mean=(0.0,) * channels, std=(1.0,) * channels)
    # The layers and their shapes do not depend on the precision, which `plan` does not choose.
    config = dataclasses.replace(config, precision=FLOAT32)
    return setup.build(config, data, tf.distribute.OneDeviceStrategy("CPU:0"))


def _classes(config: Config) -> int:
    """Returns the number of classes of the training split; if it is elsewhere, a likely one."""
    try:
        return len(sources.class_names(config.dataset, config.train_split, config.data_dir))
    except UserError:
        if config.train_examples is None:
            raise
        return config.num_classes or _SOME_CLASSES
