"""Applies --class_weights and --sampling, which balance classes, to the training set of a run."""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import tensorflow as tf

from trainer.config.flags import Config
from trainer.data import class_balance, class_rounds, sources
from trainer.data.bad_examples import BadExamples
from trainer.data.class_names import few
from trainer.data.in_memory import InMemoryDataset
from trainer.data.indexed import IndexedDataset
from trainer.distributed.process_group import ProcessGroup
from trainer.errors import UserError
from trainer.run_dir.training_data import TrainingData
from trainer.system.output import log


@dataclasses.dataclass(frozen=True)
class Balance:
    """Values that balance the classes of a training set.

    Attributes:
      weights: factor on the loss of an example, for each label; None: all factors are 1.
      order: function from positions to indices of examples. A position is the number of examples
        that the run has consumed. None: the usual order, in which each epoch has each example once.
      sizes: number of examples of each class if `order` depends on these numbers, else None.
    """

    weights: tuple[float, ...] | None = None
    order: Callable[[tf.Tensor], tf.Tensor] | None = None
    sizes: tuple[int, ...] | None = None


def from_config(
    config: Config,
    examples: InMemoryDataset | IndexedDataset,
    data: TrainingData,
    bad: BadExamples,
    group: ProcessGroup,
) -> Balance:
    """Returns the balance that the flags ask for.

    All processes get the weights of the chief, which is the first process.

    Args:
      config: flags of the run.
      examples: the training set.
      data: properties of the training set when the run began.
      bad: records examples without a usable label.
      group: the processes that train together.

    Raises:
      UserError: if the weights cannot be read, or if weights or class sizes differ from those in
        `data`. Also if the workers have different labels, or a class to balance has no examples.
        Also if no example has a label, or one example has no label and `bad` does not skip it.
    """
    if config.class_weights is None and config.sampling != class_balance.BALANCED:
        return Balance()
    labels = _labels(examples, bad, group)
    numbers = np.bincount(labels[labels >= 0], minlength=examples.classes).tolist()
    counts = dict(zip(examples.class_names, numbers, strict=True))
    for line in class_balance.described(config, counts):
        log(line)
    if config.class_weights is None:
        sizes = tuple(numbers)
        _check_same(
            "--sampling=balanced depends on class sizes, which", counts, data.class_sizes, sizes
        )
        order = class_rounds.balanced_order(labels, examples.classes, config.seed)
        return Balance(order=order, sizes=sizes)
    weights = class_balance.class_weights(config, counts)
    assert weights is not None
    what = f"the weights of --class_weights={config.class_weights}"
    _check_same(what, counts, data.class_weights, weights)
    return Balance(weights=tuple(group.broadcast(np.array(weights)).tolist()))


def _labels(
    examples: InMemoryDataset | IndexedDataset, bad: BadExamples, group: ProcessGroup
) -> np.ndarray:
    """Returns the labels (int64, −1 if unusable); checks that all workers have the same labels."""
    labels = sources.labels(examples)
    for index in np.flatnonzero(labels < 0).tolist():
        assert isinstance(examples, IndexedDataset)  # An example in memory always has a label.
        bad.add(examples.describe(index), "its label cannot be read, or is not a known class")
    if not np.any(labels >= 0):
        raise UserError(f"{examples.name} has no example with a label.\nName another split.")
    digest = hashlib.blake2b(labels.tobytes(), digest_size=16).hexdigest()
    if len({*group.all_gather(digest)}) > 1:
        raise UserError(
            f"the workers have different labels for {examples.name}.\n"
            "Give all workers the same data."
        )
    return labels


def _check_same(
    what: str, counts: Mapping[str, int], before: Sequence[float] | None, now: Sequence[float]
) -> None:
    if before is None or tuple(before) == tuple(now):
        return
    changed = [name for name, old, new in zip(counts, before, now, strict=True) if old != new]
    raise UserError(
        f"{what} differ from those that this run began with, for {few(changed)}.\n"
        "Restore the file or the data, or name a new --model_dir."
    )
