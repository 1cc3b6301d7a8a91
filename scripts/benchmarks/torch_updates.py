"""Prints what torch's AdamW and clip_grad_norm_ do to a small model in 200 updates, as JSON.

It runs in the environment that benchmark.py makes for PyTorch, without imports from the package.
tests/training/torch_updates_test.py trains the same model with this program, and compares:

    .venv-torch/bin/python scripts/benchmarks/torch_updates.py > tests/training/torch_updates.json

The model is linear, layer norm, tanh and linear, with 3 classes. It decays the two kernels alone.
The batch grows, and the learning rate changes. torch computes in float64.
"""

import json
import sys
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F  # noqa: N812

WIDTH, CLASSES, EXAMPLES = 8, 3, 1024
WEIGHT_DECAY, CLIP_NORM, SMOOTHING = 0.1, 0.22, 0.1
UPDATES = [(64, 0.02)] * 120 + [(256, 0.02)] * 40 + [(256, 0.005)] * 40


def parameters() -> list[np.ndarray]:
    """Returns kernel, bias, scale, shift, kernel and bias."""
    rng = np.random.default_rng(5)
    shapes = [(36, WIDTH), (WIDTH,), (WIDTH,), (WIDTH,), (WIDTH, CLASSES), (CLASSES,)]
    return [rng.normal(size=shape) / 4 + (number == 2) for number, shape in enumerate(shapes)]


def examples() -> tuple[np.ndarray, np.ndarray]:
    """Returns pixels [n, 36] and labels [n], those of tests/support/steps.py."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (EXAMPLES, 6, 6, 1), np.uint8)
    labels = (images.mean(axis=(1, 2, 3)) > 127).astype(np.int64) + rng.integers(0, 2, EXAMPLES)
    return images.reshape(EXAMPLES, 36), labels


def logits(pixels: torch.Tensor, values: list[torch.Tensor]) -> torch.Tensor:
    """Returns the logits of raw pixels."""
    first, bias, scale, shift, last, last_bias = values
    hidden = (pixels / 64 - 2) @ first + bias
    return torch.tanh(F.layer_norm(hidden, (WIDTH,), scale, shift, 1e-3)) @ last + last_bias


def trained() -> dict[str, Any]:
    """Returns loss and norm of each update, and the parameters after the last."""
    values = [torch.tensor(value, requires_grad=True) for value in parameters()]
    groups = [
        {"params": [value for value in values if value.ndim > 1], "weight_decay": WEIGHT_DECAY},
        {"params": [value for value in values if value.ndim == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8)
    pixels, labels = (torch.tensor(each) for each in examples())
    position, losses, norms = 0, [], []
    for size, rate in UPDATES:
        for group in optimizer.param_groups:
            group["lr"] = rate
        index = torch.arange(position, position + size) % EXAMPLES
        answers = logits(pixels[index].double(), values)
        loss = F.cross_entropy(answers, labels[index], label_smoothing=SMOOTHING)
        optimizer.zero_grad()
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(values, CLIP_NORM).item())
        losses.append(loss.item())
        optimizer.step()
        position += size
    found = {"losses": losses, "norms": norms, "parameters": [v.tolist() for v in values]}
    return {"torch": torch.__version__.partition("+")[0], **_rounded(found)}


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    return [_rounded(each) for each in value] if isinstance(value, list) else round(value, 7)


if __name__ == "__main__":
    json.dump(trained(), sys.stdout)
