"""Measures how many encoded images this machine reads and decodes in a second, for `plan`."""

import contextlib
import math
import time
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from trainer.config.flags import Config
from trainer.data import bucket_files, image_listing, mixing, pipeline
from trainer.data.bad_examples import BadExamples
from trainer.data.datasets import PREFETCH
from trainer.data.indexed import IndexedDataset
from trainer.data.tfds import prepare, set_files
from trainer.errors import UserError
from trainer.schedule.plan import Phase
from trainer.system.cores import usable
from trainer.system.tensorflow_errors import translate
from trainer.training import setup

# Shortest warm-up and shortest measurement, in seconds. During the warm-up, threads start, and the
# pipeline's first micro-batches, which it prepares before they are asked for, are used up.
_WARM_UP, _SECONDS = 1.0, 2.0


def described(config: Config, phase: Phase, needed: float) -> tuple[dict[str, float], str]:
    """Measures the input rate of this machine, and compares it with the rate that a host needs.

    Args:
      config: flags of the plan. A run with these flags must decode its images in each epoch.
      phase: phase of the plan (consecutive updates with one batch size and learning rate) in which
        a host trains on the most images per second.
      needed: number of images per second that a host trains on in `phase`.

    Returns:
      Entries of the plan's JSON, and a line of text.
    """
    found = {"host_images_per_second": needed}
    asked = f"a host of this plan trains on {needed:,.0f} images/s"
    try:
        rate = measure(config, phase)
    except UserError as error:
        reason = str(error).splitlines()[0].rstrip(".")
        return found, f"{asked}; how many it can decode was not measured: {reason}"
    found["input_images_per_second"] = rate
    cores = len(usable())
    own = f"{cores} cores of this machine" if cores > 1 else "one core of this machine"
    line = f"{asked}; {own} read and decode {rate:,.0f}"
    if rate < needed:
        enough = math.ceil(needed / rate * cores)
        line += f", so it would wait for input; {enough} such cores would decode as many"
    return found, line


def measure(config: Config, phase: Phase) -> float:
    """Returns the images per second of the input pipeline in `phase`, on all usable cores.

    The measurement takes some seconds. Images that cannot be decoded are replaced by other images.

    Raises:
      UserError: if the training images are missing or are not prepared for reading by index, or if
        none of them can be decoded.
    """
    with contextlib.suppress(RuntimeError):  # Raised if TensorFlow has started.
        tf.config.set_visible_devices([], "GPU")  # Else TensorFlow takes all GPU memory.
    _check_is_here(config)
    bad = BadExamples(skip=True, most_reported=0)
    source = setup.load(config, config.train_split, bad, training=True)
    # With skip=True, images are not decoded when they are loaded.
    assert isinstance(source, IndexedDataset)
    stream = pipeline.ExampleStream(
        source, config.augmentation, config.seed, bad=bad, mixing=mixing.from_config(config)
    )
    batches = iter(
        pipeline.training(
            stream,
            position=0,
            micro_batch_size=phase.micro_batch_size,
            replicas=1,
            local_replicas=range(1),
            image_size=phase.image_size,
        )
    )
    with translate(bad.refusal):
        _count(batches, _WARM_UP, least=PREFETCH + 1)
        count, seconds = _count(batches, _SECONDS, least=1)
    return count * phase.micro_batch_size / seconds


def _count(batches: Iterator[Any], seconds: float, least: int) -> tuple[int, float]:
    """Takes batches for `seconds`, and at least `least` batches.

    Returns:
      Number of batches, and the seconds that passed.
    """
    start, count, passed = time.perf_counter(), 0, 0.0
    while passed < seconds or count < least:
        next(batches)
        count, passed = count + 1, time.perf_counter() - start
    return count, passed


def _check_is_here(config: Config) -> None:
    remote = bucket_files.find(config)
    if remote and remote.missing_files:  # The network would be measured.
        raise UserError(f"{remote.missing_files:,} files of {remote.url} are not here yet.")
    if image_listing.is_listed(config.dataset):
        return
    builder = prepare.find_builder(config.dataset, config.data_dir)
    if not prepare.is_prepared(builder):
        raise UserError(f"{config.dataset} is not prepared here.")
    if set_files.ARRAY_RECORD not in set_files.formats(builder):
        raise UserError(f"{config.dataset} is not prepared as ArrayRecord.")
