"""Writes an imbalanced part of Fashion-MNIST: PNG files, and OUT/labels.csv that lists them.

    python scripts/benchmarks/make_imbalanced.py OUT --common=1000 --rare=10 --val=200

Five classes (labels 0 to 4) have --common training images each, and the other five --rare. The
split val has --val images of each class, so its top-1 is the balanced accuracy. The images are the
first ones of each class in the order of TFDS's files, so the same arguments make the same files.
"""

import argparse
import pathlib

import numpy as np
from PIL import Image

from trainer.data.sources import load

_COMMON = 5  # Number of common classes.


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--common", type=int, default=1000)
    parser.add_argument("--rare", type=int, default=10)
    parser.add_argument("--val", type=int, default=200)
    arguments = parser.parse_args()
    lines = ["path,label,split"]
    for split, of_tfds in (("train", "train"), ("val", "test")):
        source = load("fashion_mnist", of_tfds, None, None)
        for label, name in enumerate(source.class_names):
            count = arguments.common if label < _COMMON else arguments.rare
            count = arguments.val if split == "val" else count
            for index in np.flatnonzero(source.labels == label)[:count]:
                path = f"{split}/{label}/{index}.png"
                file = arguments.out / path
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(source.images[index, :, :, 0]).save(file)
                lines.append(f"{path},{name},{split}")
    (arguments.out / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{len(lines) - 1:,} images are listed in {arguments.out / 'labels.csv'}")


if __name__ == "__main__":
    main()
