"""Measures how many encoded images this machine reads and decodes in a second, for `plan`."""

import math
import time
from collections.abc import Iterator
from typing import Any

from trainer.config.flags import Config
from trainer.data import image_listing, mixing, pipeline
from trainer.data.bad_examples import BadExamples
from trainer.data.indexed import IndexedDataset
from trainer.data.tfds import prepare, records
from trainer.errors import UserError
from trainer.schedule.layout import default_micro_batch_size
from trainer.system.cores import usable
from trainer.system.tensorflow_errors import translate
from trainer.training import setup

# Seconds of warm-up, and seconds of measurement. The warm-up is not measured, because threads start
# in this time, and the first micro-batches come from buffers that were filled before.
_WARM_UP, _SECONDS = 1.0, 2.0


def described(config: Config, needed: float) -> tuple[dict[str, float], str]:
    """Measures the input rate of this machine, and compares it with the rate that a host needs.

    Args:
      config: flags of the plan; with these flags, the training images must stay encoded.
      needed: images per second that the replicas of one host train on.

    Returns:
      Entries of the plan's JSON, and a line of text.
    """
    found = {"host_images_per_second": needed}
    asked = f"a host of this plan trains on {needed:,.0f} images/s"
    try:
        rate = measure(config)
    except UserError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        return found, f"{asked}; how many it can decode was not measured: {reason}"
    found["input_images_per_second"] = rate
    cores = len(usable())
    own = f"{cores} cores of this machine" if cores > 1 else "one core of this machine"
    line = f"{asked}; {own} read and decode {rate:,.0f}"
    if rate < needed:
        enough = math.ceil(needed / rate * cores)
        line += f", so it waits for input unless it has {enough} such cores"
    return found, line


def measure(config: Config) -> float:
    """Returns the images per second that the input pipeline yields on all usable cores.

    The measurement takes some seconds. Images that cannot be decoded are replaced by others.

    Raises:
      UserError: if the training images are missing or are not prepared for reading by index, or if
        none of them can be decoded.
    """
    _check_is_here(config)
    bad = BadExamples(skip=True, most_reported=0)
    source = setup.load(config, config.train_split, bad, training=True)
    assert isinstance(source, IndexedDataset)  # With skip=True, images stay encoded.
    stream = pipeline.ExampleStream(
        source, config.augmentation, config.seed, bad=bad, mixing=mixing.from_config(config)
    )
    size = default_micro_batch_size(config.ghost_batch_size)
    batches = iter(
        pipeline.training(
            stream, position=0, micro_batch_size=size, replicas=1, local_replicas=range(1)
        )
    )
    with translate(bad.refusal):
        _count(batches, _WARM_UP)
        count, seconds = _count(batches, _SECONDS)
    return count * size / seconds


def _count(batches: Iterator[Any], seconds: float) -> tuple[int, float]:
    """Takes batches for at least `seconds`; returns their number and the seconds that passed."""
    start, count, passed = time.perf_counter(), 0, 0.0
    while passed < seconds:
        next(batches)
        count, passed = count + 1, time.perf_counter() - start
    return count, passed


def _check_is_here(config: Config) -> None:
    if image_listing.is_listed(config.dataset):
        return
    builder = prepare.find_builder(config.dataset, config.data_dir)
    if not prepare.is_prepared(builder):
        raise UserError(f"{config.dataset} is not prepared here.")
    if records.ARRAY_RECORD not in records.formats(builder):
        raise UserError(f"{config.dataset} is not prepared as ArrayRecord.")
