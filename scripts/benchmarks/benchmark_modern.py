"""Measures what the parts of a modern recipe cost: augmentation, mixing and the average (EMA).

    .venv/bin/python scripts/benchmarks/benchmark_modern.py            # eight minutes on two cores

The recipes' steps of wide_resnet_10_1 at B 128 take turns (benchmark_turns.py). The table compares
each with the step of crops and flips. Its input wait is the part of the time in which the step
waits for examples.
"""

import argparse
import pathlib
import statistics
import sys
import tempfile

import numpy as np
from benchmark_turns import start, take_turns

WORKER = pathlib.Path(__file__).parent / "benchmark_worker.py"
BATCH_SIZE, UPDATES = 128, 50
# Flags of the step by the names in the table.
PARTS = {
    "crop, flip": ["--augment=crop,flip"],
    "and the average": ["--augment=crop,flip", "--ema_decay=0.998"],
    "and RandAugment, 2 layers": ["--augment=crop,flip,randaugment"],
    "and TrivialAugment": ["--augment=crop,flip,trivialaugment"],
    "and erasing": ["--augment=crop,flip,erasing"],
    "and mixup": ["--augment=crop,flip,mixup"],
    "and CutMix": ["--augment=crop,flip,cutmix"],
    "all but TrivialAugment": [
        "--augment=crop,flip,randaugment,erasing,mixup,cutmix",
        "--ema_decay=0.998",
    ],
}


def compare(precision: str, rounds: int) -> None:
    """Prints the table of one precision."""
    rng = np.random.default_rng(0)
    with tempfile.NamedTemporaryFile(suffix=".npz") as file:
        images = rng.integers(0, 256, (8_192, 28, 28, 1), np.uint8)
        np.savez(file.name, images=images, labels=rng.integers(0, 10, len(images)))
        common = [sys.executable, WORKER, "--trainer=crescendo", "--model=wide_resnet_10_1"]
        common += [f"--data={file.name}", f"--batch_size={BATCH_SIZE}", f"--precision={precision}"]
        size = UPDATES * BATCH_SIZE
        workers = [start(name, [*common, *flags], UPDATES, size) for name, flags in PARTS.items()]
        take_turns(workers, rounds)
    print(f"\nwide_resnet_10_1, B {BATCH_SIZE}, {precision}, {rounds} rounds")
    print("| examples | images/s | range | time of an update | input wait |\n|---|---|---|---|---|")
    for worker in workers:
        rates = worker.rates()
        if not rates:
            print(f"| {worker.name} | died | | | |")
            continue
        waits = [answer["input_wait"] / answer["seconds"] for answer in worker.answers]
        print(
            f"| {worker.name} | {statistics.median(rates):,.0f} | "
            f"{min(rates):,.0f}–{max(rates):,.0f} | {worker.behind(workers[0]):.3f} × | "
            f"{statistics.median(waits):.1%} |",
            flush=True,
        )


def main() -> None:
    """Prints a table for each precision."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=9)
    rounds = parser.parse_args().rounds
    for precision in ("float32", "bfloat16"):
        compare(precision, rounds)


if __name__ == "__main__":
    main()
