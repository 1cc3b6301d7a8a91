"""PyTorch's worker for benchmark.py, in its own environment, without imports from the package.

It trains the other workers' model on the CPU, with the same batch size, momentum SGD and data, in
channels-last memory: the wide ResNet of torch_models.py, or torchvision's ResNet-50 or vision
transformer. This transformer has a class token, one more than the other workers' 196 tokens. A turn
is a number of updates.
"""

import argparse
import contextlib
import resource
import time

import benchmark_turns
import numpy as np
import python_torchvision  # noqa: F401
import torch
import torch_models
from torch import nn
from torch.nn import functional as F  # noqa: N812
from torchvision import models


def model_of(name: str, height: int, channels: int, classes: int) -> nn.Module:
    """Returns PyTorch's model of the name that the trainer has for it."""
    match name.split("_"):
        case ["wide", "resnet", depth, width]:
            return torch_models.wide_resnet(int(depth), int(width), channels, classes)
        case ["resnet", "50"]:
            return models.resnet50(num_classes=classes)
        case ["vit", "s", patch]:
            return models.VisionTransformer(
                height, int(patch), 12, 6, hidden_dim=384, mlp_dim=1536, num_classes=classes
            )
    raise ValueError(f"PyTorch has no {name} here.")


def main() -> None:
    """Serves turns."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="npz with images [n, h, w, c] and labels")
    parser.add_argument("--model", required=True)
    parser.add_argument("--batch_size", type=int, required=True)
    parser.add_argument("--precision", default="float32")
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    data = np.load(arguments.data)
    pixels = torch.from_numpy(data["images"]).permute(0, 3, 1, 2)  # [n, c, h, w], uint8
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    labels = torch.from_numpy(data["labels"].astype(np.int64))
    torch.manual_seed(0)
    model = model_of(arguments.model, pixels.shape[2], pixels.shape[1], 10)
    model = model.to(memory_format=torch.channels_last)
    forward = torch.compile(model) if arguments.compile else model
    sgd = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9, weight_decay=5e-4)

    def precision() -> contextlib.AbstractContextManager[None]:
        if arguments.precision == "bfloat16":
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
