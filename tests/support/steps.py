"""Training steps of a tiny model, and the updates that tests run with them."""

import itertools

import keras
import numpy as np
import tensorflow as tf

from trainer.distributed.strategy import mirrored
from trainer.nn.ghostify import ghostify
from trainer.nn.losses import TrainingLoss
from trainer.schedule.layout import Layout
from trainer.schedule.noise_scale import Setting
from trainer.schedule.stretch import Stretch
from trainer.training.averaging import ModelAverage
from trainer.training.step import TrainingStep

RNG = np.random.default_rng(0)


IMAGES = RNG.integers(0, 256, (1024, 6, 6, 1), np.uint8)


LABELS = (IMAGES.mean(axis=(1, 2, 3)) > 127).astype(np.int64) + RNG.integers(0, 2, 1024)


def tiny(*, ghost=None, dropout=0.0, regularizer=None):
    """A convolution, batch norm and logits over 3 classes."""
    keras.utils.set_random_seed(3)
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1), dtype="uint8"),
            keras.layers.Rescaling(1 / 64, -2),
            keras.layers.Conv2D(4, 3, use_bias=False, kernel_regularizer=regularizer),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.ReLU(),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dropout(dropout),
            keras.layers.Dropout(dropout / 2),
            keras.layers.Dense(3),
        ]
    )
    if ghost:
        ghostify(model, ghost_batch_size=ghost, decay=0.9, kernel="fused")
    return model


def dense():
    """A kernel and biases, for what another model would not change."""
    keras.utils.set_random_seed(3)
    layers = [keras.layers.Rescaling(1 / 64, -2), keras.layers.Flatten(), keras.layers.Dense(3)]
    return keras.Sequential([keras.Input((6, 6, 1), dtype="uint8"), *layers])


def devices():
    """Names of the logical CPU devices, for fixtures of a module."""
    return [device.name for device in tf.config.list_logical_devices("CPU")]


def strategy_of(cpus, replicas):
    if replicas == 1:
        return tf.distribute.OneDeviceStrategy(cpus[0])
    return mirrored(cpus[:replicas])


def step_on(strategy, model_of=lambda: tiny(ghost=16), **options):
    """A step; `label_smoothing` and `class_weights` make its loss, unless `loss` is given."""
    options = {"optimizer": "momentum", "weight_decay": 1e-2} | options
    smoothing, class_weights = (
        options.pop("label_smoothing", 0.1),
        options.pop("class_weights", None),
    )
    loss = TrainingLoss(label_smoothing=smoothing, class_weights=class_weights)
    options = {"loss": loss} | options
    with strategy.scope():
        model = model_of()
    return TrainingStep(strategy, model, seed=0, **options)


def averaging_step(strategy, model_of=lambda: tiny(ghost=16), *, decay, base_batch_size, **options):
    """Returns a step whose updates move an average of the model."""
    with strategy.scope():
        model = model_of()
    average = ModelAverage(strategy, model, decay=decay, base_batch_size=base_batch_size)
    return step_on(strategy, lambda: model, average=average, **options)


def iterator_from(position, b):
    """Micro-batches of b from `position` on."""

    def element(start):
        index = tf.range(start, start + b) % len(LABELS)
        return tf.gather(IMAGES, index), tf.gather(LABELS, index), start

    starts = tf.data.Dataset.range(position, 10**9, b)
    return iter(
        starts.map(element).map(
            lambda x, y, p: (tf.ensure_shape(x, [b, 6, 6, 1]), tf.ensure_shape(y, [b]), p)
        )
    )


# Batches that grow by a factor that is not an integer, and a rate and a momentum that move.
UPDATES = [(128, 0.5, 0.9)] * 3 + [(320, 0.5, 0.9)] * 2 + [(320, 0.1, 0.95), (640, 0.1, 0.95)]


def run(step, b, updates=UPDATES):
    """Losses, hits, norms and positions of `updates`, a stretch for each batch size."""
    replicas = step.strategy.num_replicas_in_sync
    iterator = iterator_from(0, b)
    position, records = 0, []
    for size, group in itertools.groupby(updates, key=lambda update: update[0]):
        settings = tuple(Setting(*update) for update in group)
        layout = Layout(replicas, b, size // (replicas * b))
        stretch = Stretch(position, settings, layout)
        records.append(step.run(iterator, stretch))
        position = stretch.end
    return {
        name: np.concatenate([getattr(record, name) for record in records])
        for name in ("loss", "top1", "gradient_norm", "micro_batch_sq_norm", "batch_sq_norm")
    }


def weights(step):
    return [variable.numpy() for variable in step.model.weights]


def with_slots(step):
    return [*weights(step), *(slot.numpy() for slot in tf.nest.flatten(step.slots))]
