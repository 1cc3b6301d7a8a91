"""Packs a recipe's update for scripts/gpu/measure.py, which measures it on a machine with a GPU.

    scripts/gpu/pack.sh --output=build/resnet_50 --accumulation=1 \\
        --flagfile=flags/imagenet_resnet_50_goyal_256.flags --micro_batch_size=128

The folder holds the update of one replica as JAX exports it, its first arguments, a check batch of
random images, and the losses that the trainer's own step has on this CPU. It also holds measure.py,
which needs only JAX and numpy, and measure_torch.py, which compares with PyTorch.
"""

import argparse
import dataclasses
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
from typing import Any

os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"  # Hides the notes of TensorFlow and XLA.

import numpy as np
import tensorflow as tf

from scripts.fit import trace
from scripts.fit.fit import recipe
from trainer.commands.plan import planned
from trainer.config.flags import Config
from trainer.errors import UserError
from trainer.nn import moving_statistics
from trainer.run_dir.training_data import TrainingData
from trainer.schedule.layout import Layout, default_micro_batch_size, lay_out
from trainer.schedule.noise_scale import Setting
from trainer.schedule.stretch import Stretch
from trainer.training.step import TrainingStep

# Updates of the check. Later ones amplify the rounding errors of the first.
UPDATES = 3
_HERE = pathlib.Path(__file__).parent
_COMPILER = _HERE.parents[1] / ".venv-gpu-compiler/bin/python"


def check_batches(data: TrainingData, side: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns two micro-batches of random images, uint8 [2, b, h, w, c], and labels [2, b]."""
    draw = np.random.default_rng(0)
    shape = (2, size, side, side, data.image_shape[-1])
    images = draw.integers(0, 256, shape, np.uint8)
    return images, draw.integers(0, data.classes, (2, size), np.int64)


def statistics_weights(step: TrainingStep, batch_size: int) -> np.ndarray:
    """Returns the weights of UPDATES updates from position 0, float32 [updates, weights]."""
    ends = range(batch_size, (UPDATES + 1) * batch_size, batch_size)
    norms = moving_statistics.trained_norms(step.model)
    weights = moving_statistics.update_weights(norms, step.starts, batch_size, ends)
    if step.average:
        weights = np.column_stack([weights, step.average.update_weights(batch_size, ends)])
    return weights.astype(np.float32)


def expected_losses(
    config: Config,
    data: TrainingData,
    batches: tuple[np.ndarray, np.ndarray],
    accumulation: int,
    start: Setting,
) -> list[float]:
    """Returns the losses of UPDATES updates by the trainer's own step on this CPU.

    Learning rate and momentum are those of `start`.
    """
    step = trace.step_on(tf.distribute.OneDeviceStrategy("CPU:0"), config, data)
    images, labels = batches
    size = images.shape[1]

    def micro_batch(t: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        which = t % accumulation % 2
        return tf.gather(images, which), tf.gather(labels, which), t * size

    iterator = iter(tf.data.Dataset.range(UPDATES * accumulation).map(micro_batch))
    setting = dataclasses.replace(start, batch_size=size * accumulation)
    stretch = Stretch(0, (setting,) * UPDATES, Layout(1, size, accumulation))
    return step.run(iterator, stretch).loss.tolist()


def pack(config: Config, folder: pathlib.Path, accumulation: int) -> None:
    """Writes the package of the update of `config` with `accumulation` micro-batches."""
    schedule, *_ = planned(dataclasses.replace(config, plan_replicas=1, plan_hosts=1))
    start = schedule.start
    ghost = config.ghost_batch_size
    layout = lay_out(start.batch_size, 1, ghost, default_micro_batch_size(ghost))
    size = config.micro_batch_size or layout.micro_batch_size
    data = trace.training_data(config, schedule.examples)
    step = trace.training_step(config, data, 1)
    update = trace.traced(step, size)
    side = step.model.input_shape[1]
    images, labels = check_batches(data, side, size)
    data = dataclasses.replace(data, image_shape=(side, side, data.image_shape[-1]))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "update.mlir").write_text(update.text, encoding="utf-8")
    arrays = {f"captured_{i:04}": each.numpy() for i, each in enumerate(update.captured)}
    weights = statistics_weights(step, size * accumulation)
    np.savez(folder / "arguments.npz", images=images, labels=labels, weights=weights, **arrays)
    description: dict[str, Any] = {
        "model": config.model,
        "image_shape": list(images.shape[2:]),
        "classes": data.classes,
        "precision": config.precision,
        "optimizer": config.optimizer,
        "ghost_batch_size": config.ghost_batch_size,
        "micro_batch_size": size,
        "accumulation": accumulation,
        "learning_rate": start.learning_rate,
        "momentum": start.momentum,
        # Maps the position of a variable among the captured ones to that of its new value.
        "results": {
            int(argument) - len(trace.update_arguments(step, size)): int(result)
            for argument, result in re.findall(
                r"%arg(\d+): tensor<[^>]*> \{tf\.aliasing_output = (\d+) : i32\}", update.text
            )
        },
        "losses": expected_losses(config, data, (images, labels), accumulation, start),
    }
    (folder / "package.json").write_text(json.dumps(description, indent=1), encoding="utf-8")
    for script in ("measure.py", "measure_torch.py", "../benchmarks/torch_models.py"):
        shutil.copy(_HERE / script, folder)
    subprocess.run([_COMPILER, _HERE / "gpu_export.py", folder], check=True)
    (folder / "update.mlir").unlink()


def check(config: Config, accumulation: int) -> None:
    """Refuses what the package would leave out, and a missing environment.

    Raises:
      UserError: if the update of `config` cannot be packed.
    """
    if accumulation < 1:
        raise UserError(f"--accumulation={accumulation} is below 1.\nUse 1 or more.")
    if left_out := [*trace.left_out(config), *(["--image_sizes"] if config.image_sizes else [])]:
        raise UserError(f"a package has no {', '.join(left_out)}.\nLeave these flags out.")
    if not _COMPILER.exists():
        raise UserError(
            f"the compiler's environment {_COMPILER.parents[1]} is missing.\n"
            "Run scripts/gpu/pack.sh, which makes it."
        )


def main() -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("--output", type=pathlib.Path, required=True, help="folder to write")
    parser.add_argument("--accumulation", type=int, default=1, help="micro-batches of an update")
    own, others = parser.parse_known_args()
    try:
        config = recipe(others)
        check(config, own.accumulation)
        pack(config, own.output, own.accumulation)
    except UserError as error:
        print(f"pack: {error}", file=sys.stderr)
        return 2
    print(f"run on the machine with the GPU: python {own.output}/measure.py")
    return 0


if __name__ == "__main__":
    sys.exit(main())
