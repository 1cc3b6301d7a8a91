"""Makes a folder of photographs, OUT/{train,val}/<class>/<name>.jpg, without a download.

    python scripts/benchmarks/make_photographs.py OUT --train=4000 --val=1000

A class is one of the ten colour photographs in the wheels of scikit-image and scikit-learn. A file
is a crop of the photograph with random place, size and shape, encoded again. Such files are about
as fast to read and decode as ImageNet's: they have about 500 × 375 pixels and 100 KB (ImageNet's
mean is 110 KB). Validation crops come from a photograph's right side and training crops from the
rest, so they share no pixels. The same arguments make the same files, and a file's content does not
depend on the number of files.

Needs Pillow, scikit-image and scikit-learn: pip install pillow scikit-image scikit-learn
"""

import argparse
import collections
import concurrent.futures
import functools
import importlib.util
import os
import pathlib
import random
import sys

from PIL import Image

# The package that contains each photograph, and the path in it.
PHOTOGRAPHS = {
    "astronaut": ("skimage", "data/astronaut.png"),
    "cat": ("skimage", "data/chelsea.png"),
    "china": ("sklearn", "datasets/images/china.jpg"),
    "coffee": ("skimage", "data/coffee.png"),
    "flower": ("sklearn", "datasets/images/flower.jpg"),
    "galaxies": ("skimage", "data/hubble_deep_field.jpg"),
    "motorcycle": ("skimage", "data/motorcycle_left.png"),
    "retina": ("skimage", "data/retina.jpg"),
    "rocket": ("skimage", "data/rocket.jpg"),
    "tissue": ("skimage", "data/ihc.png"),
}
SPLIT_AT = 0.7  # Share of a photograph's width, from the left, that is for training.
ASPECTS = (0.6, 0.9)  # Shorter side / longer side; half of the crops are upright.
SHARES = (0.6, 1.0)  # Sides of a crop, as a share of the longest that fit.
# Most crops are enlarged, by 1.4 on average. With quality 90, their files would have half as many
# bits a pixel as ImageNet's.
QUALITY = 98
OTHERS = ("png", "grayscale", "cmyk")


@functools.cache
def region(name: str, split: str) -> Image.Image:
    """Returns the part of a photograph that belongs to a split."""
    package, path = PHOTOGRAPHS[name]
    spec = importlib.util.find_spec(package)
    assert spec
    assert spec.origin
    image = Image.open(pathlib.Path(spec.origin).parent / path).convert("RGB")
    middle = round(SPLIT_AT * image.width)
    left, right = (0, middle) if split == "train" else (middle, image.width)
    return image.crop((left, 0, right, image.height))


def crop(whole: Image.Image, size: int, rng: random.Random) -> Image.Image:
    """Returns a random crop whose longer side is resized to `size` pixels."""
    aspect = rng.uniform(*ASPECTS)  # height / width
    if rng.random() < 0.5:
        aspect = 1 / aspect
    width = rng.uniform(*SHARES) * min(whole.width, whole.height / aspect)
    height = aspect * width
    left = rng.uniform(0, whole.width - width)
    top = rng.uniform(0, whole.height - height)
    scale = size / max(width, height)
    return whole.resize(
        (round(scale * width), round(scale * height)),
        Image.Resampling.BICUBIC,
        box=(left, top, left + width, top + height),
    )


def write(folder: pathlib.Path, split: str, number: int, arguments: argparse.Namespace) -> str:
    """Writes one file; returns its kind, for example jpeg."""
    rng = random.Random(f"{arguments.seed} {split} {number}")
    name = sorted(PHOTOGRAPHS)[number % len(PHOTOGRAPHS)]
    image = crop(region(name, split), arguments.size, rng)
    kind = rng.choice(OTHERS) if rng.random() < arguments.others else "jpeg"
    if kind in ("grayscale", "cmyk"):
        image = image.convert("L" if kind == "grayscale" else "CMYK")
    suffix = "png" if kind == "png" else "jpg"
    image.save(folder / name / f"{name}_{number:06}.{suffix}", quality=QUALITY)
    return kind


def main() -> None:
    """Makes both splits and prints a summary of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=pathlib.Path, help="OUT, a new folder")
    parser.add_argument("--train", type=int, default=4_000, help="training files")
    parser.add_argument("--val", type=int, default=1_000, help="validation files")
    parser.add_argument("--size", type=int, default=500, help="longer side in pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--others", type=float, default=0.0, help="share that is PNG, grayscale or CMYK JPEG"
    )
    arguments = parser.parse_args()
    if arguments.folder.exists():
        sys.exit(f"{arguments.folder} exists already: give another folder")
    for package in {package for package, _ in PHOTOGRAPHS.values()}:
        if importlib.util.find_spec(package) is None:
            sys.exit(f"{package} is missing: run pip install scikit-image scikit-learn")
    with concurrent.futures.ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for split, count in (("train", arguments.train), ("val", arguments.val)):
            folder = arguments.folder / split
            for name in PHOTOGRAPHS:
                (folder / name).mkdir(parents=True)
            task = functools.partial(write, folder, split, arguments=arguments)
            kinds = collections.Counter(pool.map(task, range(count), chunksize=32))
            size = sum(file.stat().st_size for file in folder.glob("*/*"))
            mean = f", {size / count / 1e3:.1f} KB in the mean" if count else ""
            print(f"{split}: {count:,} files{mean}; {dict(sorted(kinds.items()))}")


if __name__ == "__main__":
    main()
