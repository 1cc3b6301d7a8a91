"""Checks that examples are the same as when the run began, and the same in all processes."""

import json

from trainer.config.flags import Config
from trainer.data import image_folder
from trainer.data.class_names import few
from trainer.data.in_memory import InMemoryDataset
from trainer.data.indexed import IndexedDataset
from trainer.data.python.dataset import DATASET
from trainer.distributed.process_group import ProcessGroup
from trainer.errors import UserError
from trainer.run_dir.training_data import TrainingData
from trainer.system import typed_json
from trainer.system.typed_json import anything, list_of


def check_in_all_processes(source: InMemoryDataset | IndexedDataset, group: ProcessGroup) -> None:
    """Checks that all processes have the same number, shape and classes of examples.

    Raises:
      UserError: if a process has others; the message names its worker.
    """
    has = f"{source.examples:,} examples, {source.classes} classes, shape {source.image_shape}"
    (first, names), *others = (
        typed_json.parsed(each, list_of(anything, 2))
        for each in group.all_gather(json.dumps([has, source.class_names]))
    )
    for index, (other, other_names) in enumerate(others, start=1):
        if other != first:
            theirs, ours = other, first
        elif other_names != names:
            theirs, ours = f"the classes {few(other_names)}", f"the classes {few(names)}"
        else:
            continue
        raise UserError(
            f"of {source.name}, worker {index} has {theirs},\n"
            f"and worker 0 {ours}: give all workers the same data."
        )


def check_as_began(
    config: Config, kept: TrainingData, source: InMemoryDataset | IndexedDataset
) -> None:
    """Checks that the examples' number, shape and classes are the same as when the run began.

    Raises:
      UserError: if they differ; the message names the differences.
    """
    split = f"{config.dataset}'s {config.train_split!r}"
    now = source.examples, source.image_shape, source.classes
    began = kept.examples, kept.image_shape, kept.classes
    if began != now:
        folder = config.dataset.startswith(image_folder.PREFIX)
        raise UserError(
            f"{split} is not what this run began with: it had "
            "{:,} examples of shape {} in {} classes, and has {:,} of {} in {}.\n"
            "{}Bring the data back{}, or name a new --model_dir.".format(
                *began,
                *now,
                f"{image_folder.WHAT_COUNTS} " if folder else "",
                "" if config.dataset == DATASET else ", with --data_dir",
            )
        )
    if kept.digest != source.digest:
        raise UserError(
            f"{split} has as many examples as this run began with, and other images or labels.\n"
            "Give the same data, or name a new --model_dir."
        )
    before, names = kept.class_names, source.class_names
    if before not in (None, names):
        pairs = ((before, names), (names, before))
        lost, new = (few([n for n in some if n not in others]) or "none" for some, others in pairs)
        raise UserError(
            f"{split} has other classes than this run began with, or in another order: missing "
            f"{lost}; new {new}.\n"
            "Rename them back, or name a new --model_dir."
        )
