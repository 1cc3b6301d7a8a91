"""Makes the training and the evaluation batches of a run, in this process or on several hosts."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from trainer.config.flags import Config
from trainer.config.run_flags import NEWEST_ORDER
from trainer.data import mixing, pipeline
from trainer.data.bad_examples import BadExamples
from trainer.data.host_batches import HostBatches
from trainer.data.in_memory import InMemoryDataset
from trainer.data.indexed import IndexedDataset
from trainer.distributed.hosts import Host
from trainer.distributed.process_group import ProcessGroup
from trainer.training.balance import Balance

# Maps (examples consumed, micro-batch size, image size) to a dataset of micro-batches.
Batches = Callable[[int, int, int | None], Any]


def stream(
    config: Config, examples: InMemoryDataset | IndexedDataset, bad: BadExamples, balanced: Balance
) -> pipeline.ExampleStream:
    """Returns the training examples of a run."""
    return pipeline.ExampleStream(
        examples,
        config.augmentation,
        config.seed,
        bad=bad,
        order_version=config.order_version or NEWEST_ORDER,
        order=balanced.order,
        mixing=mixing.from_config(config),
    )


def training(
    examples: pipeline.ExampleStream, replicas: int, group: ProcessGroup, found: Sequence[Host]
) -> Batches:
    """Returns the function that makes datasets of micro-batches for the replicas of this program.

    Args:
      examples: the training examples.
      replicas: number of replicas over all processes.
      group: the processes that train together.
      found: the hosts that this program drives, which then make the batches; else [].
    """

    def batches(position: int, micro_batch_size: int, image_size: int | None = None) -> Any:
        def one_process() -> tf.data.Dataset:
            return pipeline.training(
                examples,
                position=position,
                micro_batch_size=micro_batch_size,
                replicas=replicas,
                local_replicas=group.local(replicas),
                image_size=image_size,
            )

        if not found:
            return one_process()
        request = {
            "make": "training",
            "position": position,
            "micro_batch_size": micro_batch_size,
            "image_size": image_size,
            "of": replicas,
        }
        return HostBatches(found, request, one_process)

    return batches


def evaluation(
    source: InMemoryDataset | IndexedDataset,
    batch_size: int,
    shards: int,
    group: ProcessGroup,
    *,
    found: Sequence[Host],
    augment: str,
    bad: BadExamples | None,
) -> Any:
    """Returns the batches of an evaluation for the replicas of this program.

    Args:
      source: the examples.
      batch_size: number of examples in a batch.
      shards: number of replicas over all processes.
      group: the processes that evaluate together.
      found: the hosts that this program drives, which then make the batches; else [].
      augment: value of --augment in training.
      bad: records the examples that cannot be decoded; None: such an example is an error.
    """

    def one_process() -> tf.data.Dataset:
        return pipeline.evaluation(
            source,
            batch_size=batch_size,
            shards=shards,
            local_shards=group.local(shards),
            augment=augment,
            bad=bad,
        )

    if not found:
        return one_process()
    count = pipeline.evaluation_batches(source.examples, batch_size, shards) // len(found)
    request = {"make": "evaluation", "batch_size": batch_size, "of": shards}
    return HostBatches(found, request, one_process, count)
