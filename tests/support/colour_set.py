"""Examples of a small set of colour images, for tests that write it with TFDS."""

import numpy as np
import tensorflow_datasets as tfds

LABEL = tfds.features.ClassLabel(num_classes=5)
FEATURES = {"image": tfds.features.Image(shape=(6, 4, 3)), "label": LABEL}


def colour_examples(count: int, height: int = 6, width: int = 4, channels: int = 3) -> list[dict]:
    """Random images, labelled 0 to 4 in turn."""
    rng = np.random.default_rng(count)
    images = rng.integers(0, 256, (count, height, width, channels), dtype=np.uint8)
    return [{"image": image, "label": i % 5} for i, image in enumerate(images)]


def stacked(examples: list[dict]) -> np.ndarray:
    """The images of the examples: uint8 [N, h, w, c]."""
    return np.stack([example["image"] for example in examples])
