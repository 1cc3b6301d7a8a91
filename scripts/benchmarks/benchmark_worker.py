"""TensorFlow's workers for benchmark.py: Crescendo's step, and Keras' own fit.

Each worker builds its model once. A turn is a number of updates. Both train the same model on the
same images. Keras normalizes over the whole batch, and Crescendo over ghost batches.
"""

import argparse
import os
import resource
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import benchmark_turns
import numpy as np

MICRO_BATCH_SIZE, CLASSES = 128, 10
MIXING_ALPHAS = {"mixup": 0.2, "cutmix": 1.0}


def built(strategy: Any, lanes: int, name: str, images: Any, options: argparse.Namespace) -> Any:
    """Builds Crescendo's training step for the model `name`."""
    from trainer.data import sources
    from trainer.nn.losses import TrainingLoss
    from trainer.nn.models import registry
    from trainer.training.averaging import ModelAverage
    from trainer.training.step import TrainingStep

    mean, std = sources.pixel_statistics(images.images)
    model = registry.build(
        name,
        registry.ImageFormat(images.images.shape[1:], mean, std),
        CLASSES,
        registry.GhostNorm(options.ghost_batch_size, 0.99, "fused"),
        seed=0,
        precision=options.precision,
    )
    average = None
    if options.ema_decay:
        average = ModelAverage(strategy, model, decay=options.ema_decay, base_batch_size=128)
    return TrainingStep(
        strategy,
        model,
        optimizer="momentum",
        weight_decay=5e-4,
        loss=TrainingLoss(),
        seed=0,
        lanes=lanes,
        average=average,
    )


def micro_batches(images: Any, micro_batch_size: int, options: argparse.Namespace) -> Any:
    """Returns the step's iterator over micro-batches, from position 0."""
    from trainer.config import augment_list
    from trainer.data import pipeline
    from trainer.data.mixing import Mixing

    augment = augment_list.parse(options.augment)
    mixing = None
    if augment.mixing:
        mixup, cutmix = (
            alpha if name in augment.mixing else None for name, alpha in MIXING_ALPHAS.items()
        )
        mixing = Mixing(mixup, cutmix, options.ghost_batch_size)
    return iter(
        pipeline.training(
            pipeline.ExampleStream(images, augment, 0, mixing=mixing),
            position=0,
            micro_batch_size=micro_batch_size,
            replicas=1,
            local_replicas=range(1),
        )
    )


def crescendo(name: str, images: Any, batch_size: int, options: argparse.Namespace) -> Callable:
    """Returns a function that trains by Crescendo's step for a number of updates."""
    from trainer.distributed import strategy as cluster
    from trainer.schedule.layout import lay_out
    from trainer.schedule.noise_scale import Setting
    from trainer.schedule.stretch import Stretch

    ghost = options.ghost_batch_size
    strategy, lanes = cluster.connect(
        "one_device", virtual_devices=None, deterministic=False, ghost_batch_size=ghost
    )
    step = built(strategy, lanes, name, images, options)
    layout = lay_out(batch_size, 1, ghost, MICRO_BATCH_SIZE)
    iterator = micro_batches(images, layout.micro_batch_size, options)

    def train(updates: int) -> benchmark_turns.Answer:
        setting = Setting(batch_size, 0.1, 0.9)
        records = step.run(iterator, Stretch(0, (setting,) * updates, layout))
        return {"seconds": records.seconds, "input_wait": records.input_wait or 0.0}

    return train


def network(name: str, shape: tuple[int, int, int]) -> Any:
    """Returns the network `name` with plain batch norm, from float images to logits."""
    from trainer.nn.models.resnet import resnet_50
    from trainer.nn.models.vision_transformer import SIZES, vision_transformer
    from trainer.nn.models.wide_resnet import wide_resnet

    match name.split("_"):
        case ["wide", "resnet", depth, width]:
            return wide_resnet(int(depth), int(width), shape, CLASSES)
        case ["vit", size, patch]:
            return vision_transformer(SIZES[size], int(patch), shape, CLASSES)
    return resnet_50(shape, CLASSES)


def keras_fit(name: str, images: Any, batch_size: int, options: argparse.Namespace) -> Callable:
    """Returns a function that trains by Keras' `fit` with a compiled model and arrays in memory."""
    import keras

    if options.precision == "bfloat16":
        keras.config.set_dtype_policy("mixed_bfloat16")
    shape = images.images.shape[1:]
    inputs = keras.Input(shape, dtype="uint8")
    scaled = keras.layers.Rescaling(1 / 64, -2)(inputs)
    model = keras.Model(inputs, network(name, shape)(scaled))
    model.compile(
        keras.optimizers.SGD(0.1, momentum=0.9),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=options.compile,
    )

    def train(updates: int) -> benchmark_turns.Answer:
        index = np.arange(updates * batch_size) % len(images.labels)
        x, y = images.images[index], images.labels[index]
        start = time.perf_counter()
        model.fit(x, y, batch_size=batch_size, epochs=1, shuffle=False, verbose=0)
        return {"seconds": time.perf_counter() - start}

    return train


def main() -> None:
    """Serves turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trainer", choices=["crescendo", "keras"], required=True)
    parser.add_argument("--data", required=True, help="npz with images [n, h, w, c] and labels")
    parser.add_argument("--model", required=True)
    parser.add_argument("--batch_size", type=int, required=True)
    parser.add_argument("--ghost_batch_size", type=int, default=32)
    parser.add_argument("--augment", default="none")
    parser.add_argument("--ema_decay", type=float)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--compile", action="store_true", help="Keras compiles its step by XLA")
    options = parser.parse_args()
    from trainer.data.in_memory import InMemoryDataset

    data = np.load(options.data)
    names = tuple("0123456789")
    images = InMemoryDataset(data["images"], data["labels"], names, "benchmark")
    make = {"crescendo": crescendo, "keras": keras_fit}[options.trainer]
    train = make(options.model, images, options.batch_size, options)
    train(2)

    def turn(updates: int) -> benchmark_turns.Answer:
        answer = train(updates)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return answer | {"peak_bytes": peak}

    benchmark_turns.serve(turn)


if __name__ == "__main__":
    main()
