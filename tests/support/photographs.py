"""Folders of photographs of two classes."""

import pathlib

import numpy as np
from PIL import Image


def write_photographs(folder, counts, size=(40, 40)):
    """Writes an image folder of two classes, dark above and dark below."""
    height, width = size
    rng = np.random.default_rng(0)
    for split, count in counts.items():
        for number in range(count):
            label = number % 2
            path = pathlib.Path(folder, split, str(label), f"{number}.jpg")
            path.parent.mkdir(parents=True, exist_ok=True)
            light = np.linspace(40, 200, height)[:, None, None] * np.ones((height, width, 3))
            pixels = (light[::-1] if label else light) + rng.normal(0, 20, (height, width, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(path)
