"""PyTorch's worker for benchmark.py, in its own environment, without imports from the package.

It trains the other workers' wide ResNet (pre-activation, 6n + 4 layers) on the CPU, with the same
batch size, momentum SGD and data, in channels-last memory. A turn is a number of updates.
"""

import argparse
import contextlib
import resource
import time

import benchmark_turns
import numpy as np
import torch
import torch_models
from torch.nn import functional as F  # noqa: N812


def main() -> None:
    """Serves turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="npz with images [n, h, w, c] and labels")
    parser.add_argument("--depth", type=int, required=True)
    parser.add_argument("--width", type=int, required=True)
    parser.add_argument("--batch_size", type=int, required=True)
    parser.add_argument("--bfloat16", action="store_true")
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    data = np.load(arguments.data)
    pixels = torch.from_numpy(data["images"]).permute(0, 3, 1, 2)  # [n, c, h, w], uint8
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    labels = torch.from_numpy(data["labels"].astype(np.int64))
    torch.manual_seed(0)
    model = torch_models.wide_resnet(arguments.depth, arguments.width, pixels.shape[1], 10)
    model = model.to(memory_format=torch.channels_last)
    forward = torch.compile(model) if arguments.compile else model
    sgd = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)

    def precision() -> contextlib.AbstractContextManager[None]:
        if arguments.bfloat16:
            return torch.autocast("cpu", torch.bfloat16)
        return contextlib.nullcontext()

    def update(first: int) -> None:
        index = torch.arange(first, first + arguments.batch_size) % len(labels)
        x = (pixels[index].float() - 128) / 64
        sgd.zero_grad()
        with precision():
            loss = F.cross_entropy(forward(x), labels[index])
        loss.backward()
        sgd.step()

    update(0)
    update(arguments.batch_size)

    def turn(updates: int) -> benchmark_turns.Answer:
        start = time.perf_counter()
        for i in range(updates):
            update(i * arguments.batch_size)
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {"seconds": seconds, "peak_bytes": peak}

    benchmark_turns.serve(turn)


if __name__ == "__main__":
    main()
