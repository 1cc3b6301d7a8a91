"""200 updates by adamw with clipping, decay and exclusions, against what torch made of them.

scripts/benchmarks/torch_updates.py made torch_updates.json.
"""

import itertools
import json
import pathlib

import keras
import numpy as np
import pytest

from tests.support.steps import iterator_from, step_on, strategy_of
from trainer.schedule.layout import Layout
from trainer.schedule.noise_scale import Setting
from trainer.schedule.stretch import Stretch

TORCH = json.loads(pathlib.Path(__file__).with_name("torch_updates.json").read_text())
UPDATES = [(64, 0.02)] * 120 + [(256, 0.02)] * 40 + [(256, 0.005)] * 40
CLIP_NORM = 0.22


def model():
    """The model of the script, with its initial parameters."""
    made = keras.Sequential(
        [
            keras.Input((6, 6, 1), dtype="uint8"),
            keras.layers.Rescaling(1 / 64, -2),
            keras.layers.Flatten(),
            keras.layers.Dense(8),
            keras.layers.LayerNormalization(),
            keras.layers.Activation("tanh"),
            keras.layers.Dense(3),
        ]
    )
    rng = np.random.default_rng(5)
    shapes = [tuple(variable.shape) for variable in made.trainable_variables]
    values = [rng.normal(size=s) / 4 + (number == 2) for number, s in enumerate(shapes)]
    for variable, value in zip(made.trainable_variables, values, strict=True):
        variable.assign(value)
    return made


# The last leaves one micro-batch to an update of 64 examples.
@pytest.mark.parametrize(("replicas", "b", "lanes"), [(1, 16, 1), (2, 32, 2), (1, 64, 1)])
def test_200_updates_by_adamw_with_clipping_are_those_of_torch(cpus, replicas, b, lanes):
    options = {"optimizer": "adamw", "weight_decay": 0.1, "clip_norm": CLIP_NORM, "lanes": lanes}
    step = step_on(strategy_of(cpus, replicas), model, **options)
    iterator, position, records = iterator_from(0, b), 0, []
    for size, group in itertools.groupby(UPDATES, key=lambda update: update[0]):
        settings = tuple(Setting(size, rate, 0.9) for _, rate in group)
        layout = Layout(replicas, b, size // (replicas * b))
        records.append(step.run(iterator, Stretch(position, settings, layout)))
        position += len(settings) * size
    losses, norms, clipped = (
        np.concatenate([getattr(record, name) for record in records])
        for name in ("loss", "gradient_norm", "clipped")
    )
    np.testing.assert_allclose(losses, TORCH["losses"], rtol=1e-5)
    np.testing.assert_allclose(norms, TORCH["norms"], rtol=1e-5)
    for ours, theirs in zip(step.parameters, TORCH["parameters"], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=2e-5)
    apart = np.abs(np.array(TORCH["norms"]) - CLIP_NORM) > 1e-4
    np.testing.assert_array_equal(clipped[apart], np.array(TORCH["norms"])[apart] > CLIP_NORM)
    assert 60 < clipped.sum() < 140
