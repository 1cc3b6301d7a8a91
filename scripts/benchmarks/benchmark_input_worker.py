"""Competitors of benchmark_input.py: each makes batches of 224 × 224 pixels from photographs.

Each competitor is pinned to its cores. It answers a turn with the seconds that a number of batches
took after its buffers were full. Every turn is a new pass, which ends before the next competitor's
turn. `crescendo` and `tensorflow` (the same operations alone) run in the package's environment.
`torch`, and `libjpeg` (decoding alone), run in .venv-torch.
"""

import argparse
import itertools
import multiprocessing
import os
import pathlib
import resource
import time
from collections.abc import Callable, Iterator
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import benchmark_turns

BATCH_SIZE = 128
IMAGE_SIZE = 224
LEAD_IN = 10  # Batches before the clock starts: more than any competitor's buffers hold.

Batches = Callable[[int], Iterator[Any]]  # Yields at least as many batches as its argument says.


def children() -> list[int]:
    """Returns the process ids of this process's children."""
    pids = [child.pid for child in multiprocessing.active_children()]
    return [pid for pid in pids if pid is not None]


def peak_memory() -> int:
    """Returns the peak memory of this process plus its children's unshared memory, in bytes."""
    total = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for process in children():
        for line in pathlib.Path(f"/proc/{process}/smaps_rollup").read_text().splitlines():
            total += int(line.split()[1]) if line.startswith("Private_") else 0
    return 1024 * total


def processor_time() -> float:
    """Returns the processor time of this process and its children, in seconds."""
    ticks = 0
    for process in (os.getpid(), *children()):
        stat = pathlib.Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        ticks += int(stat[11]) + int(stat[12])  # User mode and kernel mode.
    return ticks / os.sysconf("SC_CLK_TCK")


def measured(batches: Batches, count: int) -> benchmark_turns.Answer:
    """Takes one turn: measures `count` batches after the lead-in."""
    built = time.perf_counter()
    iterator = batches(LEAD_IN + count)
    next(iterator)
    first = time.perf_counter() - built
    for _ in range(LEAD_IN - 1):
        next(iterator)
    computed, start = processor_time(), time.perf_counter()
    for _ in range(count):
        next(iterator)
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "processor_seconds": processor_time() - computed,
        "first_batch": first,
        "peak_bytes": peak_memory(),
    }


def crescendo(options: argparse.Namespace) -> Batches:
    """Returns Crescendo's pipeline: order, reading, decoding, crop, resize, flip, bad examples."""
    from trainer.config import augment_list
    from trainer.data import pipeline, sources

    source = sources.load(options.data, "train", options.data_dir, IMAGE_SIZE, augment="imagenet")
    positions = itertools.count(step=100 * BATCH_SIZE)

    def batches(count: int) -> Iterator[Any]:
        del count  # The pipeline is endless.
        return iter(
            pipeline.training(
                pipeline.ExampleStream(source, augment_list.parse("imagenet"), 0),
                position=next(positions),
                micro_batch_size=BATCH_SIZE,
                replicas=1,
                local_replicas=range(1),
            )
        )

    return batches


def tensorflow(options: argparse.Namespace) -> Batches:
    """Returns TensorFlow's operations alone: no fixed order, no flip; an error ends the pass."""
    import tensorflow as tf

    paths = tf.constant(sorted(str(path) for path in pathlib.Path(options.data).glob("*/*")))

    def image(path: tf.Tensor) -> tf.Tensor:
        encoded = tf.io.read_file(path)
        begin, size, _ = tf.image.sample_distorted_bounding_box(
            tf.io.extract_jpeg_shape(encoded),
            tf.zeros([1, 0, 4]),
            min_object_covered=0.0,
            aspect_ratio_range=(3 / 4, 4 / 3),
            area_range=(0.08, 1.0),
            max_attempts=10,
            use_image_if_no_bounding_boxes=True,
        )
        window = tf.concat([begin[:2], size[:2]], axis=0)  # top, left, height, width
        pixels = tf.io.decode_and_crop_jpeg(encoded, window, channels=3)
        return tf.cast(tf.image.resize(pixels, (IMAGE_SIZE, IMAGE_SIZE)), tf.uint8)

    dataset = tf.data.Dataset.from_tensor_slices(paths).shuffle(len(paths)).repeat()
    dataset = dataset.map(image, num_parallel_calls=options.cores, deterministic=False)
    dataset = dataset.batch(BATCH_SIZE, drop_remainder=True).prefetch(1)

    def batches(count: int) -> Iterator[Any]:
        del count  # The dataset is endless.
        return iter(dataset)

    return batches


def torch(options: argparse.Namespace) -> Batches:
    """Returns torchvision's training preprocessing with Pillow, with one worker a core."""
    import python_torchvision  # noqa: F401
    from torch.utils import data
    from torchvision import datasets
    from torchvision.transforms import v2

    folder = datasets.ImageFolder(
        options.data,
        v2.Compose([v2.RandomResizedCrop(IMAGE_SIZE), v2.RandomHorizontalFlip(), v2.PILToTensor()]),
    )

    def batches(count: int) -> Iterator[Any]:
        # More samples than batches keep the workers busy to the end of the turn.
        sampler = data.RandomSampler(folder, num_samples=(count + LEAD_IN) * BATCH_SIZE)
        return iter(data.DataLoader(folder, BATCH_SIZE, sampler=sampler, num_workers=options.cores))

    return batches


def decode(paths: list[str]) -> None:
    """Reads and decodes whole files with libjpeg-turbo, at its default settings."""
    import simplejpeg

    for path in paths:
        simplejpeg.decode_jpeg(pathlib.Path(path).read_bytes())


def libjpeg(options: argparse.Namespace) -> Batches:
    """Returns decoding alone, by one process a core, in tasks of an eighth of a batch."""
    paths = sorted(str(path) for path in pathlib.Path(options.data).glob("*/*"))
    pool = multiprocessing.Pool(options.cores)
    size = BATCH_SIZE // 8

    def batches(count: int) -> Iterator[Any]:
        endless = itertools.cycle(paths)
        tasks = [list(itertools.islice(endless, size)) for _ in range(8 * count)]
        decoded = pool.imap_unordered(decode, tasks)
        return (list(itertools.islice(decoded, 8)) for _ in range(count))

    return batches


def main() -> None:
    """Serves turns."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("peer", choices=["crescendo", "tensorflow", "torch", "libjpeg"])
    parser.add_argument("--cores", type=int, required=True)
    parser.add_argument("data", help="Crescendo's --dataset, or the others' folder of classes")
    parser.add_argument("--data_dir", help="folder of the prepared dataset")
    options = parser.parse_args()
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.cores])
    batches = globals()[options.peer](options)
    measured(batches, 1)
    benchmark_turns.serve(lambda count: measured(batches, count))


if __name__ == "__main__":
    main()
