"""Compares the speed of Crescendo with that of Keras' fit and PyTorch on this machine.

    .venv/bin/python scripts/benchmarks/benchmark.py           # everything, two hours on two cores
    .venv/bin/python scripts/benchmarks/benchmark.py --quick   # one model and batch size, a minute
    .venv/bin/python scripts/benchmarks/benchmark.py --model=resnet_50  # the tables of one model
    .venv/bin/python scripts/benchmarks/benchmark.py --input   # reading and decoding photographs
    .venv/bin/python scripts/benchmarks/benchmark.py --target  # time to 90% on Fashion-MNIST

Competitors take turns (benchmark_turns.py), and those of one precision make a table. Tables show
the median and the range of the speed over the rounds, and the median of the ratios of two speeds
within a round. The first use makes an environment for PyTorch (.venv-torch). If PyTorch cannot be
installed, the tables leave it out.

Images have the shape of Fashion-MNIST's for wide_resnet_10_1, of CIFAR-10's for wide_resnet_16_4,
and of ImageNet's crops for resnet_50 and vit_s_16. They are random numbers in memory, because a
step's speed does not depend on them.
"""

import argparse
import dataclasses
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import benchmark_input
import benchmark_target
import numpy as np
from benchmark_turns import Worker, start, take_turns

HERE = pathlib.Path(__file__).parent
TORCH = HERE.parents[1] / ".venv-torch" / "bin" / "python"


@dataclasses.dataclass(frozen=True)
class Task:
    """Sizes of the task that the competitors train: images, batches and turns.

    Attributes:
      shape: (h, w, c).
      batch_sizes: one pair of tables each.
      images: images of a turn, which takes seconds and has at least one update.
      largest_whole: largest batch size of competitors without micro-batches. A batch of 3,200 would
        need 15 GiB with wide_resnet_16_4.
      stored: images in memory, from which batches are taken in turn.
    """

    shape: tuple[int, int, int]
    batch_sizes: tuple[int, ...]
    images: int
    largest_whole: int
    stored: int = 8_192


# All competitors of a table are in memory at once. With vit_s_16, each needs 4 to 5 GiB for a batch
# of 32, which is too much for 24 GiB.
TASKS = {
    "wide_resnet_10_1": Task((28, 28, 1), (128, 640, 3_200), 6_400, 3_200),
    "wide_resnet_16_4": Task((32, 32, 3), (128, 640, 3_200), 256, 640),
    "resnet_50": Task((224, 224, 3), (16,), 32, 16, stored=256),
    "vit_s_16": Task((224, 224, 3), (16,), 32, 16, stored=256),
}
PRECISIONS = ("float32", "bfloat16")
AUGMENTED = "Crescendo, with augmentation"
TORCH_PACKAGES = (
    *("numpy", "torch==2.13.*", "setuptools"),
    *("torchvision", "simplejpeg", "pillow"),  # These read photographs.
    *("scikit-image", "scikit-learn"),  # These contain the photographs.
)


def competitors(
    model: str, batch_size: int, precision: str, data: str, quick: bool
) -> list[Worker]:
    """Starts all competitors that train `model` with `batch_size`, Crescendo's step first."""
    task = TASKS[model]
    updates = max(1, task.images // batch_size)
    common = ["--data", data, "--model", model, "--batch_size", batch_size]
    common += ["--precision", precision]
    worker = [sys.executable, HERE / "benchmark_worker.py", *common]
    ghost = min(32, batch_size)
    ours = [*worker, "--trainer=crescendo", f"--ghost_batch_size={ghost}"]
    norm = "" if model == "vit_s_16" else f", ghost {ghost}"  # This model has no batch norm.
    commands = {f"Crescendo{norm}": ours}
    if batch_size <= task.largest_whole:
        if batch_size > ghost:
            commands["Crescendo, ghost 128: plain batch norm"] = [*ours, "--ghost_batch_size=128"]
        commands["Keras fit, jit_compile=False"] = [*worker, "--trainer=keras"]
        if not quick:
            commands["Keras fit, jit_compile=True"] = [*worker, "--trainer=keras", "--compile"]
            if model == "wide_resnet_10_1":
                commands[AUGMENTED] = [*ours, "--augment=medium"]
    if batch_size <= task.largest_whole and TORCH.exists() and not quick:
        torch = [TORCH, HERE / "benchmark_torch.py", *common]
        commands["PyTorch, eager"] = torch
        commands["PyTorch, compiled"] = [*torch, "--compile"]
    return [start(name, c, updates, updates * batch_size) for name, c in commands.items()]


def flops(model: str) -> float | None:
    """Returns the floating-point operations of a wide ResNet's convolutions on one image.

    Both passes count. Returns None for other models.
    """
    if not model.startswith("wide_resnet"):
        return None
    height, _, channels = TASKS[model].shape
    _, _, depth, width = model.split("_")
    widths = [16] + [16 * int(width) * 2**stage for stage in range(3)]
    total = 2 * height**2 * 9 * channels * widths[0] * 2.0  # Images need no gradient.
    before = widths[0]
    for stage, after in enumerate(widths[1:]):
        for block in range((int(depth) - 4) // 6):
            height = -(-height // 2) if stage and block == 0 else height
            kernels = 9 * before * after + 9 * after**2 + (before * after if before != after else 0)
            total += 3 * 2 * height**2 * kernels
            before = after
    return total


def matrix_product_rate() -> float:
    """Returns the speed of a float32 product of two 4096 × 4096 matrices, in operations a second.

    The result is the highest of six measurements.
    """
    code = (
        "import tensorflow as tf, time\n"
        "a = tf.random.normal([4096, 4096]); best = 9e9\n"
        "for _ in range(6):\n"
        "  start = time.perf_counter(); (a @ a).numpy()\n"
        "  best = min(best, time.perf_counter() - start)\n"
        "print(2 * 4096**3 / best)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(done.stdout)


def compare(model: str, batch_size: int, precision: str, rounds: int, quick: bool) -> None:
    """Prints the table of one model, batch size and precision."""
    rng, task = np.random.default_rng(0), TASKS[model]
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        images = rng.integers(0, 256, (task.stored, *task.shape), np.uint8)
        np.savez(file.name, images=images, labels=rng.integers(0, 10, task.stored))
        workers = competitors(model, batch_size, precision, file.name, quick)
        take_turns(workers, rounds)
    operations, peak = flops(model), matrix_product_rate()
    print(
        f"\n{model}, B {batch_size}, {precision}, {rounds} rounds; "
        f"float32 matrix product {peak / 1e9:.0f} GFLOP/s"
    )
    print("| trainer | images/s | range | Crescendo is | of the float32 product | peak memory |")
    print("|---|---|---|---|---|---|")
    for worker in workers:
        rates = worker.rates()
        if not rates:
            print(f"| {worker.name} | died | | | | |")
            continue
        share = f"{statistics.median(rates) * operations / peak:.0%}" if operations else ""
        memory = worker.answers[-1]["peak_bytes"] / 2**30
        print(
            f"| {worker.name} | {statistics.median(rates):,.4g} | "
            f"{min(rates):,.4g}–{max(rates):,.4g} | {worker.behind(workers[0]):.2f} × | "
            f"{share} | {memory:.1f} GiB |"
        )
    for worker in workers:
        if worker.name == AUGMENTED and worker.answers:
            waits = [answer["input_wait"] / answer["seconds"] for answer in worker.answers]
            print(f"input wait with augmentation: {statistics.median(waits):.1%}")
    sys.stdout.flush()


def whole_run() -> None:
    """Prints the speed of a whole run of the program: two epochs with two evaluations."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "trainer", "train", f"--model_dir={folder}/run"]
        command += ["--precision=float32"]
        command += ["--flagfile=flags/fashion_mnist_decay.flags", "--epochs=2"]
        start = time.perf_counter()
        subprocess.run(command, cwd=HERE.parents[1], capture_output=True, check=True)
        seconds = time.perf_counter() - start
        result = json.loads((pathlib.Path(folder) / "run" / "result.json").read_text())
    print(
        f"\na run of two epochs, B 128, float32: {result['examples_per_second']:,.0f} images/s in "
        f"training, {result['position'] / seconds:,.0f} from the start of the process to its end"
    )


def stalls() -> None:
    """Prints the cost of a start, a growth and a checkpoint."""
    code = "import time; t = time.perf_counter(); import tensorflow; print(time.perf_counter() - t)"
    alone = [sys.executable, "-c", code]
    # The first import of a machine reads its files from the disk.
    for _ in range(2):
        done = subprocess.run(alone, capture_output=True, text=True, check=True)
    print(f"TensorFlow's own import (s): {float(done.stdout):.2f}")
    command = [sys.executable, str(HERE / "benchmark_stalls.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    costs: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    for name, value in costs.items():
        print(f"{name}: {value}")


def install_torch() -> None:
    """Makes or completes .venv-torch; removes its Python if PyTorch cannot be installed."""
    folder = TORCH.parent.parent
    installed = folder / "installed.txt"
    if installed.exists() and installed.read_text() == " ".join(TORCH_PACKAGES):
        return
    print("Installing PyTorch in .venv-torch (once) ...", file=sys.stderr)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(TORCH), "-m", "pip", "install", "--quiet", *TORCH_PACKAGES]
    if subprocess.run(pip, check=False).returncode == 0:
        installed.write_text(" ".join(TORCH_PACKAGES))
    else:
        print("PyTorch cannot be installed here and is left out.", file=sys.stderr)
        TORCH.unlink()


def main() -> None:
    """Prints all tables, or those that the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parts = parser.add_mutually_exclusive_group()
    parts.add_argument("--quick", action="store_true", help="print one table of three rounds")
    parts.add_argument("--model", choices=TASKS, help="print only the tables of this model")
    parts.add_argument("--input", action="store_true", help="measure only the input pipeline")
    parts.add_argument("--stalls", action="store_true", help="measure only a start and stalls")
    parts.add_argument("--target", action="store_true", help="measure only the time to 90%%")
    parser.add_argument("--batch_size", type=int, help="with --model: print only these tables")
    parser.add_argument("--rounds", type=int, help="number of rounds (unset: 7; --target: 3)")
    arguments = parser.parse_args()
    one_part = (arguments.quick, arguments.model, arguments.input, arguments.stalls)
    everything = not any((*one_part, arguments.target))
    if arguments.batch_size and not arguments.model:
        parser.error("--batch_size needs --model")
    if arguments.quick:
        compare("wide_resnet_10_1", 128, "float32", arguments.rounds or 3, quick=True)
    if everything or arguments.model or arguments.input:
        install_torch()
    for model in [arguments.model] if arguments.model else TASKS if everything else []:
        sizes = TASKS[model].batch_sizes
        for batch_size in [arguments.batch_size] if arguments.batch_size else sizes:
            for precision in PRECISIONS:
                compare(model, batch_size, precision, arguments.rounds or 7, quick=False)
    if everything:
        whole_run()
    if everything or arguments.stalls:
        stalls()
    if everything or arguments.input:
        benchmark_input.compare(TORCH, arguments.rounds or 7)
    if everything or arguments.target:
        benchmark_target.compare(arguments.rounds or 3)


if __name__ == "__main__":
    main()
