"""Measures the time that a start, a growth of the batch and a checkpoint take, for benchmark.py.

This program trains wide_resnet_10_1 on Fashion-MNIST, which scripts/train.sh prepares, and prints
JSON.
"""

import argparse
import json
import os
import pathlib
import statistics
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

OPTIONS = argparse.Namespace(
    ghost_batch_size=32, precision="float32", ema_decay=None, augment="medium"
)


def main() -> None:
    """Prints the costs in seconds, and as shares of the training time."""
    argparse.ArgumentParser(description=__doc__.partition("\n")[0]).parse_args()
    clock = [time.perf_counter()]

    def lap() -> float:
        clock.append(time.perf_counter())
        return round(clock[-1] - clock[-2], 2)

    costs: dict[str, object] = {}
    import benchmark_worker

    from trainer.data import sources
    from trainer.distributed import strategy as cluster
    from trainer.run_dir.checkpoints import Checkpoints
    from trainer.schedule.layout import Layout
    from trainer.schedule.noise_scale import Setting
    from trainer.schedule.stretch import Stretch
    from trainer.training import run

    del run  # This module imports all that `train` needs, and the import's time is measured.
    costs["start: import (s)"] = lap()
    strategy, lanes = cluster.connect(
        "one_device", virtual_devices=None, deterministic=False, ghost_batch_size=32
    )
    images = sources.load("fashion_mnist", "train", None, None)
    costs["start: data (s)"] = lap()
    step = benchmark_worker.built(strategy, lanes, "wide_resnet_10_1", images, OPTIONS)
    costs["start: build (s)"] = lap()
    iterator = benchmark_worker.micro_batches(images, 128, OPTIONS)

    def stretch(batch_size: int, updates: int) -> Stretch:
        settings = (Setting(batch_size, 0.1, 0.9),) * updates
        return Stretch(0, settings, Layout(1, 128, batch_size // 128))

    first = step.run(iterator, stretch(128, 1)).seconds
    costs["start: pipeline and trace (s)"] = round(lap() - first, 2)
    costs["start: first update (s)"] = round(first, 2)
    costs["start to first update (s)"] = round(clock[-1] - clock[0], 2)

    step.run(iterator, stretch(128, 40))
    at_growth = step.run(iterator, stretch(640, 1)).seconds
    after = [step.run(iterator, stretch(640, 1)).seconds for _ in range(9)]
    costs["growth 128 → 640: first update over the median of the next"] = round(
        at_growth / statistics.median(after), 2
    )
    costs["traces"] = step.traces
    with tempfile.TemporaryDirectory() as folder:
        weights = [variable.value for variable in step.model.weights]
        slots = [slot for slots in step.slots for slot in slots]
        saved = Checkpoints(pathlib.Path(folder), {"weights": weights, "slots": slots}, keep=3)
        seconds = []
        for update in range(7):
            start = time.perf_counter()
            saved.save(update, {"position": update})
            seconds.append(time.perf_counter() - start)
            saved.wait()
    stall = statistics.median(seconds)
    costs["checkpoint (s)"] = round(stall, 3)
    costs["checkpoints' share, one a minute"] = f"{stall / 60:.2%}"
    costs["checkpoints' share, one in ten minutes"] = f"{stall / 600:.3%}"
    print(json.dumps(costs))


if __name__ == "__main__":
    main()
