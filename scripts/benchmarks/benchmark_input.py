"""Compares input pipelines on photographs, from reading to batches, on one core and on two.

Crescendo's `imagenet` pipeline reads a folder of JPEGs, and the same files as ArrayRecord. The
competitors are TensorFlow's operations alone, PyTorch's DataLoader with Pillow, and plain decoding.
Each turn reads the files from the page cache. Tables also show images per second of processor time,
which hardly depend on the machine's other load. The costs of an index of a million records
(benchmark_index.py) come first.
"""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile

import benchmark_input_records
import benchmark_input_worker
from benchmark_turns import Worker, start, take_turns

HERE = pathlib.Path(__file__).parent
TRAIN, VAL = 4_000, 10
BATCHES_A_CORE = 20  # Batches of a turn, which takes some seconds, for each core.


def competitors(cores: int, photographs: str, data_dir: str, torch: pathlib.Path) -> list[Worker]:
    """Starts all competitors, Crescendo with the folder first."""
    script = HERE / "benchmark_input_worker.py"
    train = f"{photographs}/train"
    commands = {
        "Crescendo, folder": [sys.executable, script, "crescendo", f"image_folder:{photographs}"],
        "Crescendo, ArrayRecord": [
            *[sys.executable, script, "crescendo", benchmark_input_records.NAME],
            *["--data_dir", data_dir],
        ],
        "TensorFlow's operations alone": [sys.executable, script, "tensorflow", train],
        "PyTorch DataLoader, Pillow": [torch, script, "torch", train],
        "libjpeg-turbo, decoding alone": [torch, script, "libjpeg", train],
    }
    count = BATCHES_A_CORE * cores
    images = count * benchmark_input_worker.BATCH_SIZE
    return [start(n, [*c, "--cores", cores], count, images) for n, c in commands.items()]


def table(workers: list[Worker], cores: int, rounds: int) -> None:
    """Prints the results on `cores` cores."""
    size = benchmark_input_worker.IMAGE_SIZE
    print(f"\nphotographs to {size} × {size}, cores: {cores}, {rounds} rounds")
    print("| pipeline | images/s | range | Crescendo is | ", end="")
    print("a processor second | Crescendo is | first batch | peak memory |")
    print("|---|---|---|---|---|---|---|---|")
    for worker in workers:
        rates = worker.rates()
        if not rates:
            print(f"| {worker.name} | died | | | | | | |")
            continue
        memory = max(answer["peak_bytes"] for answer in worker.answers) / 2**20
        a_second = worker.images / worker.median("processor_seconds")
        print(
            f"| {worker.name} | {statistics.median(rates):,.0f} | "
            f"{min(rates):,.0f}–{max(rates):,.0f} | {worker.behind(workers[0]):.2f} × | "
            f"{a_second:,.0f} | {worker.behind(workers[0], 'processor_seconds'):.2f} × | "
            f"{worker.median('first_batch'):.1f} s | {memory:,.0f} MiB |",
            flush=True,
        )


def compare(torch: pathlib.Path, rounds: int) -> None:
    """Makes the photographs with `torch`, the Python of .venv-torch, and prints every table."""
    done = subprocess.run(
        [sys.executable, HERE / "benchmark_index.py"], capture_output=True, text=True, check=True
    )
    print(f"\n{done.stdout.strip()}", flush=True)
    if not torch.exists():
        print("\nphotographs: left out, because .venv-torch and its packages are missing")
        return
    with tempfile.TemporaryDirectory() as folder:
        photographs, data_dir = f"{folder}/photographs", f"{folder}/data"
        make = HERE / "make_photographs.py"
        sizes = [f"--train={TRAIN}", f"--val={VAL}"]
        made = subprocess.check_output([torch, make, photographs, *sizes], text=True)
        print(f"\n{made.splitlines()[0]}", flush=True)
        write = HERE / "benchmark_input_records.py"
        read = [sys.executable, write, f"{photographs}/train", data_dir]
        done = subprocess.run(read, capture_output=True, text=True, check=True)
        for name, value in json.loads(done.stdout.splitlines()[-1]).items():
            print(f"{name}: {value}", flush=True)
        for cores in (1, 2):
            workers = competitors(cores, photographs, data_dir, torch)
            take_turns(workers, rounds)
            table(workers, cores, rounds)
