"""Applies --class_weights and --sampling to the training set of a run."""

import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from trainer.config.flags import Config
from trainer.data import class_balance, class_rounds, sources
from trainer.data.class_names import few
from trainer.data.in_memory import InMemoryDataset
from trainer.data.indexed import IndexedDataset
from trainer.distributed.process_group import ProcessGroup
from trainer.errors import UserError
from trainer.run_dir import training_data
from trainer.system.output import log


@dataclasses.dataclass(frozen=True)
class Balance:
    """Values that balance the classes of a training set.

    Attributes:
      weights: factor on the loss of an example, by label; None: all are 1.
      order: function from positions to indices of examples; None: each comes once an epoch.
    """

    weights: tuple[float, ...] | None = None
    order: Callable[[tf.Tensor], tf.Tensor] | None = None


def from_config(
    config: Config,
    examples: InMemoryDataset | IndexedDataset,
    path: pathlib.Path | None,
    group: ProcessGroup,
) -> Balance:
    """Returns the balance that the flags ask for; every process gets the chief's weights.

    Args:
      config: flags of the run.
      examples: the training set.
      path: run directory, whose weights must be the same; None in processes that do not read it.
      group: the processes that train together.

    Raises:
      UserError: if the weights cannot be read, differ from those that the run began with, or a
        class that is to be balanced has no examples.
    """
    if config.class_weights is None and config.sampling != class_balance.BALANCED:
        return Balance()
    labels = sources.labels(examples)
    numbers = np.bincount(labels[labels >= 0], minlength=examples.classes).tolist()
    counts = dict(zip(examples.class_names, numbers, strict=True))
    for line in class_balance.described(config, counts):
        log(line)
    if config.class_weights is None:
        order = class_rounds.balanced_order(labels, examples.classes, config.seed)
        return Balance(order=order)
    weights = class_balance.class_weights(config, counts)
    assert weights is not None
    kept = training_data.read(path) if path else None
    if kept and kept.class_weights not in (None, weights):
        changed = [
            name
            for name, before, now in zip(counts, kept.class_weights, weights, strict=True)
            if before != now
        ]
        raise UserError(
            f"--class_weights={config.class_weights} gives other weights than this run began with, "
            f"of {few(changed)}.\nRestore the file or the data, or name a new --model_dir."
        )
    return Balance(weights=tuple(group.broadcast(np.array(weights)).tolist()))
