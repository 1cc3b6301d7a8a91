"""Crescendo, a distributed trainer that grows the batch instead of lowering the learning rate.

The public names are in `__all__`; docs/python.md shows each of them. `import trainer` imports
nothing else: a name is imported when it is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from trainer.api.order import shuffle as shuffle
    from trainer.api.planning import plan as plan
    from trainer.api.planning import trajectory as trajectory
    from trainer.api.trained import evaluate as evaluate
    from trainer.api.trained import load as load
    from trainer.api.trained import predict as predict
    from trainer.api.training import Stopped as Stopped
    from trainer.api.training import train as train
    from trainer.errors import ExitError as ExitError
    from trainer.errors import NonFiniteLossError as NonFiniteLossError
    from trainer.errors import UserError as UserError
    from trainer.nn.ghost_batch_norm import GhostBatchNormalization as GhostBatchNormalization
    from trainer.nn.ghostify import ghostify as ghostify
    from trainer.schedule.gradient_noise import GradientNoise as GradientNoise

__version__ = "0.1.0"

# Maps each public name to its module. A name must not be the name of a folder of this package.
_MODULES = {
    "plan": "trainer.api.planning",
    "train": "trainer.api.training",
    "Stopped": "trainer.api.training",
    "evaluate": "trainer.api.trained",
    "predict": "trainer.api.trained",
    "load": "trainer.api.trained",
    "ExitError": "trainer.errors",
    "UserError": "trainer.errors",
    "NonFiniteLossError": "trainer.errors",
    # Parts for training loops of your own.
    "trajectory": "trainer.api.planning",
    "shuffle": "trainer.api.order",
    "GradientNoise": "trainer.schedule.gradient_noise",
    "GhostBatchNormalization": "trainer.nn.ghost_batch_norm",
    "ghostify": "trainer.nn.ghostify",
}

__all__ = [*_MODULES]


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used."""
    if name not in _MODULES:
        raise AttributeError(f"module 'trainer' has no attribute {name!r}")
    if _MODULES[name].startswith("trainer.nn."):  # These modules import Keras.
        importlib.import_module("trainer.api.keras_backend").prepare()
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
