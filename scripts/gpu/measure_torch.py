"""Measures PyTorch on the model and sizes of a package, for scripts/gpu/measure.py --torch.

The model is timm's of the same name, or the wide ResNet of torch_models.py. It is compiled, in
channels-last memory, with autocast to the package's precision and momentum SGD. Its batch norm
takes a whole micro-batch, as PyTorch has no ghost batches.
"""

import contextlib
import json
import pathlib
import re
import sys
import time
from typing import Any

import numpy as np
import torch
import torch_models
from torch import nn
from torch.nn import functional as F  # noqa: N812


def model_of(name: str, channels: int, classes: int) -> nn.Module:
    """Returns PyTorch's model of the name that the trainer has for it."""
    if found := re.fullmatch(r"wide_resnet_(\d+)_(\d+)", name):
        return torch_models.wide_resnet(int(found[1]), int(found[2]), channels, classes)
    import timm

    other = {"resnet_50": "resnet50", "vit_s_16": "vit_small_patch16_224"}.get(name, name)
    return timm.create_model(other, num_classes=classes)


def measure(package: dict[str, Any], seconds: float) -> float:
    """Returns the images/s of updates of the package's size."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    h, w, c = package["image_shape"]
    size, accumulation = package["micro_batch_size"], package["accumulation"]
    torch.manual_seed(0)
    model = model_of(package["model"], c, package["classes"]).to(device)
    forward = torch.compile(model.to(memory_format=torch.channels_last))
    sgd = torch.optim.SGD(
        model.parameters(), package["learning_rate"], package["momentum"], weight_decay=1e-4
    )
    pixels = torch.randint(0, 256, (size, c, h, w), dtype=torch.uint8, device=device)
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    labels = torch.from_numpy(np.arange(size) % package["classes"]).to(device)
    half = package["precision"] == "bfloat16"

    def update() -> torch.Tensor:
        sgd.zero_grad(set_to_none=True)
        for _ in range(accumulation):
            x = (pixels.float() - 128) / 64
            autocast = torch.autocast(device, torch.bfloat16) if half else contextlib.nullcontext()
            with autocast:
                loss = F.cross_entropy(forward(x), labels) / accumulation
            loss.backward()
        sgd.step()
        return loss.detach()

    for _ in range(5):
        update().item()
    start, count = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        for _ in range(5):
            loss = update()
        loss.item()  # Waits for the device.
        count += 5
    return count * accumulation * size / (time.perf_counter() - start)


if __name__ == "__main__":
    package = json.loads((pathlib.Path(__file__).parent / "package.json").read_text())
    print(measure(package, float(sys.argv[1])))
