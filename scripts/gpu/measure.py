"""Measures a packed update on this machine's GPU, or CPU, with JAX and numpy alone.

    python build/resnet_50/measure.py [--seconds=10] [--torch]

scripts/gpu/pack.py makes the folder that this file lies in. The program first compares the losses
of some updates with those of the trainer. Then it prints the images/s, the peak of the memory, and
the fraction of the card's bfloat16 peak that the update reaches. With --torch, PyTorch first trains
the same model on the same sizes. The last line is one JSON object with all numbers.

Exit status: 0 if the losses agree, 1 if they differ or are not finite.
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import time
from typing import Any

# Labels and positions are int64, which JAX has only if it is asked for.
os.environ["JAX_ENABLE_X64"] = "1"

import numpy as np

_FOLDER = pathlib.Path(__file__).parent
# Largest difference of a loss: of float32, and of bfloat16, whose sums differ by device.
_TOLERANCE = {"float32": 1e-5, "bfloat16": 2e-2}
# Dense bfloat16 peak in TFLOP/s, from NVIDIA's data sheets, by JAX's name of the card.
_PEAKS = {
    "NVIDIA H200": 989.0,
    "NVIDIA H100 80GB HBM3": 989.0,
    "NVIDIA A100-SXM4-40GB": 312.0,
    "NVIDIA A100-SXM4-80GB": 312.0,
    "NVIDIA L4": 121.0,
}


class Update:
    """A packed update on the first device of JAX, with its variables."""

    def __init__(self, folder: pathlib.Path) -> None:
        import jax

        self.package = json.loads((folder / "package.json").read_text())
        self.device = jax.devices()[0]
        kind = "cpu" if self.device.platform == "cpu" else "cuda"
        exported = jax.export.deserialize((folder / f"update.{kind}.jax").read_bytes())
        with np.load(folder / "arguments.npz") as arrays:
            found = {name: arrays[name] for name in arrays.files}
        self.images, self.labels = (jax.device_put(found[name]) for name in ("images", "labels"))
        self.weights = found["weights"]
        names = sorted(name for name in found if name.startswith("captured_"))
        self.captured = [jax.device_put(found[name]) for name in names]
        self.updates = 0
        # Maps the position of a variable in `captured` to that of its new value among the results.
        self._results = {int(a): r for a, r in self.package["results"].items()}
        before = len(self.arguments()) - len(self.captured)
        self._call = jax.jit(exported.call, donate_argnums=[before + i for i in self._results])

    def arguments(self) -> list[Any]:
        """Returns the arguments of the next update."""
        p, size = self.package, self.package["micro_batch_size"] * self.package["accumulation"]
        return [
            self.images,
            self.labels,
            np.int64(self.updates * size),
            np.int32(p["accumulation"]),
            np.float32(p["learning_rate"]),
            np.float32(p["momentum"]),
            np.float32(size),
            self.weights[min(self.updates, len(self.weights) - 1)],
            *self.captured,
        ]

    def run(self) -> Any:
        """Applies an update; returns its record, whose first value is the loss."""
        results = self._call(*self.arguments())
        for variable, result in self._results.items():
            self.captured[variable] = results[result]
        self.updates += 1
        return results[0]

    def flops(self) -> float | None:
        """Returns the operations of one pass and the rest of the update, as XLA counts them."""
        cost = self._call.lower(*self.arguments()).compile().cost_analysis()
        return cost.get("flops") if cost else None


def images_per_second(update: Update, seconds: float) -> float:
    """Returns the images/s of updates in `seconds`, after some that warm up."""
    for _ in range(3):
        np.asarray(update.run())
    size = update.package["micro_batch_size"] * update.package["accumulation"]
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        records = [update.run() for _ in range(5)]
        np.asarray(records[-1])  # Waits for the device.
        count += len(records)
    return count * size / (time.perf_counter() - start)


def largest_difference(losses: list[float], expected: list[float]) -> float:
    """Returns the largest difference of two losses; nan if one of them is not a number."""
    return float(np.max(np.abs(np.subtract(losses, expected))))


def main() -> int:
    """Checks and measures; returns the exit status."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=10, help="time of the measurement")
    parser.add_argument("--torch", action="store_true", help="also measure PyTorch")
    options = parser.parse_args()
    of_torch: dict[str, Any] = {}
    if options.torch:
        # In a process that ends before JAX takes the memory of the card.
        command = [sys.executable, str(_FOLDER / "measure_torch.py"), str(options.seconds)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            print(f"PyTorch failed:\n{done.stderr[-2000:]}")
        else:
            of_torch["torch_images_per_second"] = float(done.stdout.splitlines()[-1])
    update = Update(_FOLDER)
    package = update.package
    losses = [float(np.asarray(update.run())[0]) for _ in package["losses"]]
    worst = largest_difference(losses, package["losses"])
    agree = worst <= _TOLERANCE[package["precision"]]
    print(f"losses {losses}, the trainer's {package['losses']}: largest difference {worst:.2g}")
    speed = images_per_second(update, options.seconds)
    found: dict[str, Any] = {
        "model": package["model"],
        "micro_batch_size": package["micro_batch_size"],
        "accumulation": package["accumulation"],
        "precision": package["precision"],
        "device": update.device.device_kind,
        "loss_difference": worst,
        "images_per_second": speed,
    }
    if stats := update.device.memory_stats():
        found["peak_bytes"] = stats.get("peak_bytes_in_use")
    peak = _PEAKS.get(update.device.device_kind)
    if peak and (flops := update.flops()):
        # XLA counts one iteration of the accumulation.
        found["peak_fraction"] = flops / package["micro_batch_size"] * speed / (peak * 1e12)
    found |= of_torch
    print(json.dumps(found))
    return 0 if agree else 1


if __name__ == "__main__":
    sys.exit(main())
