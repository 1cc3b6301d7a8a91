"""Imports torchvision, at least its Python part; benchmarks in PyTorch's environment import this.

A PyTorch without CUDA cannot load a torchvision that is compiled for CUDA. The benchmarks need only
torchvision's Python part, whose import requires these two operators.
"""

import torch

try:
    import torchvision  # noqa: F401
except RuntimeError:
    for operator in ("nms", "qnms"):
        signature = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
        torch.library.define(f"torchvision::{operator}", signature)
