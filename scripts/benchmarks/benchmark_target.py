"""Compares the time to a test accuracy of 90% on Fashion-MNIST, from the start of the process.

Crescendo trains its recipes. The first competitor is the convolutional network of Keras' example
for MNIST (keras.io/examples/vision/mnist_convnet) with that example's settings: Adam and batches of
128. The second is the recipes' network, wide_resnet_10_1, with the same settings. Each evaluates
the test images after every epoch. All compute in float32. The time includes the start, reading the
data and evaluations.

    python scripts/benchmarks/benchmark_target.py keras convnet  # one competitor's run
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

HERE = pathlib.Path(__file__).parent
TARGET, MOST_EPOCHS = 0.9, 16
# `compare` gives its runs the moment before their process starts.
START = float(os.environ.get("CRESCENDO_BENCHMARK_START") or time.time())
RUNS = {
    "Crescendo, fashion_mnist_grow": ["crescendo", "fashion_mnist_grow"],
    "Crescendo, fashion_mnist_decay": ["crescendo", "fashion_mnist_decay"],
    "Keras fit, its example's network": ["keras", "convnet"],
    "Keras fit, wide_resnet_10_1": ["keras", "wide_resnet"],
}


def train_recipe(recipe: str) -> None:
    """Trains a recipe; prints the seconds from `START` to the first evaluation at the target."""
    from trainer.run_dir.metrics import read

    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-m", "trainer", "train", f"--model_dir={folder}/run"]
        command += [f"--flagfile=flags/{recipe}.flags", "--precision=float32"]
        process = subprocess.Popen([*command, f"--epochs={MOST_EPOCHS}"], stdout=subprocess.DEVNULL)
        metrics = pathlib.Path(folder) / "run" / "metrics.jsonl"
        running = True
        try:
            while running:
                time.sleep(0.2)
                running = process.poll() is None  # Before the last look at the metrics.
                for point in read(metrics) if metrics.exists() else []:
                    if point["split"] == "eval" and point["top1"] >= TARGET:
                        report(point["epoch"], point["top1"])
                        return
        finally:
            process.terminate()
            process.wait()  # Else it would write into the folder that is deleted here.
        if process.returncode:
            sys.exit(f"{recipe} ended with status {process.returncode}")


def fit(network: str) -> None:
    """Trains by `fit`; prints the seconds from `START` to the first epoch at the target."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import keras
    import tensorflow_datasets as tfds
    from benchmark_worker import network as network_of

    (train, labels), (test, test_labels) = tfds.as_numpy(
        tfds.load("fashion_mnist", split=["train", "test"], batch_size=-1, as_supervised=True)
    )
    layers = keras.layers
    if network == "convnet":
        hidden = [
            *(layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D()),
            *(layers.Conv2D(64, 3, activation="relu"), layers.MaxPooling2D()),
            *(layers.Flatten(), layers.Dropout(0.5), layers.Dense(10)),
        ]
    else:
        hidden = [network_of("wide_resnet_10_1", (28, 28, 1))]
    model = keras.Sequential([keras.Input((28, 28, 1)), layers.Rescaling(1 / 255), *hidden])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss, metrics=["accuracy"])

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if logs["val_accuracy"] >= TARGET:
                report(epoch + 1, logs["val_accuracy"])
                self.model.stop_training = True

    both = {"validation_data": (test, test_labels), "callbacks": [Stop()]}
    model.fit(train, labels, batch_size=128, epochs=MOST_EPOCHS, verbose=0, **both)


def report(epoch: float, top1: float) -> None:
    """Prints the seconds since `START`, the epoch and the accuracy."""
    seconds = time.time() - START
    print(json.dumps({"seconds": seconds, "epoch": epoch, "top1": float(top1)}), flush=True)


def compare(rounds: int) -> None:
    """Runs all competitors in turn, each `rounds` times, and prints the table."""
    root = HERE.parents[1]
    paths = {"PYTHONPATH": f"{root}{os.pathsep}{HERE}"}
    prepare = "from trainer.data.tfds.prepare import prepare; prepare('fashion_mnist', None)"
    subprocess.run([sys.executable, "-c", prepare], cwd=root, check=True, capture_output=True)
    found: dict[str, list[dict[str, float]]] = {name: [] for name in RUNS}
    for _ in range(rounds):
        for name, command in RUNS.items():
            done = subprocess.run(
                [sys.executable, HERE / "benchmark_target.py", *command],
                cwd=root,
                env=os.environ | paths | {"CRESCENDO_BENCHMARK_START": str(time.time())},
                stdout=subprocess.PIPE,
                text=True,
                check=True,
            )
            lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
            found[name] += [json.loads(line) for line in lines]
    print(f"\ntime to {TARGET:.0%} of the test images, {rounds} runs each, interleaved")
    print("| trainer | seconds | range | epochs | runs that reached it |\n|---|---|---|---|---|")
    for name, results in found.items():
        if not results:
            print(f"| {name} | | | over {MOST_EPOCHS} | 0 |")
            continue
        seconds = [each["seconds"] for each in results]
        epochs = statistics.median(each["epoch"] for each in results)
        print(
            f"| {name} | {statistics.median(seconds):.0f} | {min(seconds):.0f}–{max(seconds):.0f} "
            f"| {epochs:.0f} | {len(results)} |",
            flush=True,
        )


def main() -> None:
    """Runs one competitor once."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    programs = parser.add_subparsers(dest="trainer", required=True)
    programs.add_parser("crescendo").add_argument("recipe", help="fashion_mnist_grow, for example")
    programs.add_parser("keras").add_argument("network", choices=["convnet", "wide_resnet"])
    options = parser.parse_args()
    if options.trainer == "crescendo":
        train_recipe(options.recipe)
    else:
        fit(options.network)


if __name__ == "__main__":
    main()
