"""Compares the speed of Crescendo with that of Keras' fit and PyTorch on this machine.

    .venv/bin/python scripts/benchmarks/benchmark.py          # everything, an hour on two cores
    .venv/bin/python scripts/benchmarks/benchmark.py --quick  # one model and batch size, a minute
    .venv/bin/python scripts/benchmarks/benchmark.py --input  # reading and decoding photographs

Competitors take turns (benchmark_turns.py). Tables show the median and the range of the speed over
the rounds, and the median of the ratios of two speeds within a round. The first use makes an
environment for PyTorch (.venv-torch). If PyTorch cannot be installed, the tables leave it out.

Images have the shape of Fashion-MNIST's for wide_resnet_10_1, and of CIFAR-10's for
wide_resnet_16_4. They are random numbers in memory, because a step's speed does not depend on them.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import benchmark_input
import numpy as np
from benchmark_turns import Worker, start, take_turns

HERE = pathlib.Path(__file__).parent
TORCH = HERE.parents[1] / ".venv-torch" / "bin" / "python"
SHAPES = {"wide_resnet_10_1": (28, 28, 1), "wide_resnet_16_4": (32, 32, 3)}
# A turn takes seconds and has at least one update.
IMAGES_A_ROUND = {"wide_resnet_10_1": 6_400, "wide_resnet_16_4": 256}
# Largest batch size of competitors without micro-batches. With wide_resnet_16_4, a batch of 3,200
# would need 15 GiB, five times the memory for a batch of 640.
LARGEST_WHOLE = {"wide_resnet_10_1": 3_200, "wide_resnet_16_4": 640}
STEP, AUGMENTED = "Crescendo, ghost 32", "Crescendo, ghost 32, with augmentation"
TORCH_PACKAGES = (
    *("numpy", "torch==2.13.*", "setuptools"),
    *("torchvision", "simplejpeg", "pillow"),  # These read photographs.
    *("scikit-image", "scikit-learn"),  # These contain the photographs.
)


def competitors(model: str, batch_size: int, data: str, quick: bool) -> list[Worker]:
    """Starts all competitors that train `model` with `batch_size`, Crescendo's step first."""
    updates = max(1, IMAGES_A_ROUND[model] // batch_size)
    worker = [sys.executable, HERE / "benchmark_worker.py", "--data", data, "--model", model]
    worker += ["--batch_size", batch_size]
    ours = [*worker, "--trainer=crescendo"]
    commands = {STEP: ours}
    if not quick:
        commands["Crescendo, bfloat16"] = [*ours, "--precision=bfloat16"]
    if batch_size <= LARGEST_WHOLE[model]:
        commands["Crescendo, ghost 128: plain batch norm"] = [*ours, "--ghost_batch_size=128"]
        commands["Keras fit"] = [*worker, "--trainer=keras"]
        if not quick:
            commands[AUGMENTED] = [*ours, "--augment=medium"]
    if batch_size <= LARGEST_WHOLE[model] and TORCH.exists() and not quick:
        _, _, depth, width = model.split("_")
        torch = [TORCH, HERE / "benchmark_torch.py", "--data", data, "--batch_size", batch_size]
        torch += ["--depth", depth, "--width", width]
        commands["PyTorch float32, eager"] = torch
        commands["PyTorch float32, compiled"] = [*torch, "--compile"]
        commands["PyTorch bfloat16, eager"] = [*torch, "--bfloat16"]
        commands["PyTorch bfloat16, compiled"] = [*torch, "--bfloat16", "--compile"]
    return [start(name, c, updates, updates * batch_size) for name, c in commands.items()]


def flops(model: str) -> float:
    """Returns the floating-point operations of the convolutions on one image, in both passes."""
    height, _, channels = SHAPES[model]
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


def compare(model: str, batch_size: int, rounds: int, quick: bool) -> None:
    """Prints the table of one model and batch size."""
    rng = np.random.default_rng(0)
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        images = rng.integers(0, 256, (8_192, *SHAPES[model]), np.uint8)
        np.savez(file.name, images=images, labels=rng.integers(0, 10, 8_192))
        workers = competitors(model, batch_size, file.name, quick)
        take_turns(workers, rounds)
    peak = matrix_product_rate()
    print(f"\n{model}, B {batch_size}, {rounds} rounds; matrix product {peak / 1e9:.0f} GFLOP/s")
    print("| trainer | images/s | range | Crescendo's step is | of the product | peak memory |")
    print("|---|---|---|---|---|---|")
    for worker in workers:
        rates = worker.rates()
        if not rates:
            print(f"| {worker.name} | died | | | | |")
            continue
        share = statistics.median(rates) * flops(model) / peak
        memory = worker.answers[-1]["peak_bytes"] / 2**30
        print(
            f"| {worker.name} | {statistics.median(rates):,.0f} | "
            f"{min(rates):,.0f}–{max(rates):,.0f} | {worker.behind(workers[0]):.2f} × | "
            f"{share:.0%} | {memory:.1f} GiB |"
        )
    for worker in workers:
        if worker.name == AUGMENTED:
            waits = [answer["input_wait"] / answer["seconds"] for answer in worker.answers]
            print(f"input wait with augmentation: {statistics.median(waits):.1%}", flush=True)


def whole_run() -> None:
    """Prints the speed of a whole run of the program: two epochs with two evaluations."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "trainer", "train", f"--model_dir={folder}/run"]
        command += ["--precision=float32"]  # The other tables are in float32 too.
        command += ["--flagfile=flags/fashion_mnist_decay.flags", "--epochs=2"]
        start = time.perf_counter()
        subprocess.run(command, cwd=HERE.parents[1], capture_output=True, check=True)
        seconds = time.perf_counter() - start
        result = json.loads((pathlib.Path(folder) / "run" / "result.json").read_text())
    print(
        f"\na run of two epochs, B 128: {result['examples_per_second']:,.0f} images/s in training, "
        f"{result['position'] / seconds:,.0f} from the start of the process to its end"
    )


def stalls() -> None:
    """Prints the cost of a start, a growth and a checkpoint."""
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
    """Prints all tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="print one table of three rounds")
    parser.add_argument("--input", action="store_true", help="measure only the input pipeline")
    parser.add_argument("--rounds", type=int, default=7, help="number of rounds")
    arguments = parser.parse_args()
    if arguments.quick:
        compare("wide_resnet_10_1", 128, 3, quick=True)
        return
    install_torch()
    if arguments.input:
        benchmark_input.compare(TORCH, arguments.rounds)
        return
    for model in SHAPES:
        for batch_size in (128, 640, 3_200):
            compare(model, batch_size, arguments.rounds, quick=False)
    whole_run()
    stalls()
    benchmark_input.compare(TORCH, arguments.rounds)


if __name__ == "__main__":
    main()
