"""Tabulates the numbers that the operations of RandAugment and TrivialAugment use.

A case is an operation at one strength with one sign. The sign is a direction, such as a rotation to
the left or to the right. This module computes the numbers of all cases once, in Python, so they do
not depend on the micro-batch. Operations that move an image interpolate by nearest neighbour.
Places outside of the image are black, as in both papers' code.
"""

import dataclasses
import enum
import itertools
import math
from collections.abc import Sequence

import numpy as np

# Operations of RandAugment (Cubuk et al. 2019, arXiv:1909.13719, §3.1 and figure 2). TrivialAugment
# uses the same operations.
OPERATIONS = (
    *("identity", "autocontrast", "equalize", "rotate", "solarize", "color", "posterize"),
    *("contrast", "brightness", "sharpness", "shear_x", "shear_y", "translate_x", "translate_y"),
)
STRENGTHS = 31  # Number of strengths of TrivialAugment.
_ONE = 65536  # Fixed-point numbers are integers in units of 1 / 65,536, as in Pillow.

# Numbers a₀ to a₅ of an affine map. The result's pixel with its centre at (x, y) comes from the
# place (a₀ x + a₁ y + a₂, a₃ x + a₄ y + a₅) in the image.
Affine = tuple[float, float, float, float, float, float]


class Kind(enum.IntEnum):
    """Kind of change that an operation makes; images with the same kind are changed together."""

    KEEP = 0
    MOVE = 1
    RECOLOUR = 2
    AUTOCONTRAST = 3
    EQUALIZE = 4
    TOWARD_GREY = 5
    SHARPEN = 6


@dataclasses.dataclass(frozen=True)
class Strength:
    """Numbers that the operations use at one strength; each paper has its own ranges.

    Attributes:
      shear: columns per row (shear_x), or rows per column (shear_y).
      translation: distances in x (translate_x) and in y (translate_y), in pixels.
      rotation: angle, in degrees.
      threshold: lowest grey level that `solarize` inverts.
      bits: number of bits that `posterize` keeps.
      factors: (factor for the positive sign, factor for the negative sign), shared by color,
        contrast, brightness and sharpness; a factor of 1 changes nothing.
    """

    shear: float
    translation: tuple[int, int]
    rotation: float
    threshold: int
    bits: int
    factors: tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Cases:
    """Numbers of n cases, sorted by operation, then by strength, then by sign (positive first).

    Attributes:
      kind: int32 [n], a Kind.
      affine: int32 [n, 6], a₀ to a₅ in fixed point. Here, x and y are the column and row of a
        pixel, not its centre, so a₂ and a₅ differ from those of `Affine`.
      table: uint8 [n, 256], the new grey level for each old grey level, for the kind RECOLOUR.
      factor: float32 [n], factor of color, contrast and sharpness.
      to_mean: bool [n], whether an image of the kind TOWARD_GREY is mixed with its mean grey level.
    """

    kind: np.ndarray
    affine: np.ndarray
    table: np.ndarray
    factor: np.ndarray
    to_mean: np.ndarray


def randaugment(magnitude: float, height: int, width: int) -> Strength:
    """Returns the numbers of RandAugment at a magnitude from 0 to 10.

    `autocontrast` and `equalize` do not depend on the magnitude. The other operations change
    nothing at magnitude 0. At magnitude 10, they are as strong as at the end of their ranges in
    AutoAugment (Cubuk et al. 2018, table 6). AutoAugment's largest translation is 150 pixels for
    images of 331 pixels. This function scales it to the image's size. `posterize` and `solarize`
    become stronger with the magnitude, as in torchvision. In RandAugment's own code, they become
    weaker.
    """
    share = magnitude / 10
    return Strength(
        shear=0.3 * share,
        translation=(int(150 / 331 * width * share), int(150 / 331 * height * share)),
        rotation=30 * share,
        threshold=256 - int(256 * share),
        bits=8 - int(4 * share),
        factors=(1 + 0.9 * share, 1 - 0.9 * share),
    )


def trivialaugment() -> list[Strength]:
    """Returns the numbers of TrivialAugment, with its wide ranges, at the strengths 0 to 30.

    As in its authors' code, translations are at most 32 pixels at any image size, and angles are
    whole degrees. The factor of color, contrast, brightness and sharpness is the same for both
    signs: it grows with the strength from 0.01 to 2.
    """
    last = STRENGTHS - 1
    return [
        Strength(
            shear=0.99 * strength / last,
            translation=(32 * strength // last,) * 2,
            rotation=135 * strength // last,
            threshold=256 - 256 * strength // last,
            bits=8 - 6 * strength // last,
            factors=(0.01 + 1.99 * strength / last,) * 2,
        )
        for strength in range(STRENGTHS)
    ]


def tabulate(strengths: Sequence[Strength], height: int, width: int, channels: int) -> Cases:
    """Returns the cases of all operations at all `strengths`, for images [height, width, channels].

    The operation `color` does not change images of one channel.
    """
    levels = np.arange(256)
    count = len(OPERATIONS) * len(strengths) * 2
    identity = _fixed((1, 0, 0, 0, 1, 0))
    kind = np.zeros(count, np.int32)
    affine, table = np.tile(identity, (count, 1)), np.tile(levels.astype(np.uint8), (count, 1))
    factor, to_mean = np.ones(count, np.float32), np.zeros(count, np.bool_)
    every = itertools.product(OPERATIONS, strengths, (0, 1))
    for i, (operation, strength, negative) in enumerate(every):
        factor[i] = strength.factors[negative]
        match operation:
            case "autocontrast" | "equalize":
                kind[i] = Kind[operation.upper()]
            case "solarize":
                kind[i] = Kind.RECOLOUR
                table[i] = np.where(levels < strength.threshold, levels, 255 - levels)
            case "posterize":
                kind[i], table[i] = (
                    Kind.RECOLOUR,
                    levels >> (8 - strength.bits) << (8 - strength.bits),
                )
            case "brightness":
                kind[i] = Kind.RECOLOUR
                # Pillow computes in float32, too. The conversion to integers rounds down.
                table[i] = np.minimum(factor[i] * levels.astype(np.float32), 255).astype(np.uint8)
            case "color":
                kind[i] = Kind.KEEP if channels == 1 else Kind.TOWARD_GREY
            case "contrast":
                kind[i], to_mean[i] = Kind.TOWARD_GREY, True
            case "sharpness":
                kind[i] = Kind.SHARPEN
            case "rotate" | "shear_x" | "shear_y" | "translate_x" | "translate_y":
                sign = -1 if negative else 1
                kind[i], affine[i] = (
                    Kind.MOVE,
                    _fixed(_map(operation, strength, sign, height, width)),
                )
    return Cases(kind, affine, table, factor, to_mean)


def _map(operation: str, strength: Strength, sign: int, height: int, width: int) -> Affine:
    """Returns the map of an operation that moves pixels; shears do not move the top left corner."""
    shear, (x, y) = sign * strength.shear, strength.translation
    match operation:
        case "shear_x":
            return (1, shear, 0, 0, 1, 0)
        case "shear_y":
            return (1, 0, 0, shear, 1, 0)
        case "translate_x":
            return (1, 0, sign * x, 0, 1, 0)
        case "translate_y":
            return (1, 0, 0, 0, 1, sign * y)
    # A rotation keeps the centre in place. Sine and cosine are rounded to 15 digits, as in Pillow.
    angle = -math.radians(sign * strength.rotation % 360)
    cosine, sine = round(math.cos(angle), 15), round(math.sin(angle), 15)
    column = width / 2 - cosine * width / 2 - sine * height / 2
    row = height / 2 + sine * width / 2 - cosine * height / 2
    return (cosine, sine, column, -sine, cosine, row)


def _fixed(numbers: Affine) -> np.ndarray:
    """Converts a map of pixel centres to a map of columns and rows, in fixed point: int32 [6]."""
    a, b, c, d, e, f = numbers
    exact = (a, b, c + a * 0.5 + b * 0.5, d, e, f + d * 0.5 + e * 0.5)
    return np.array([math.floor(number * _ONE + 0.5) for number in exact], np.int32)
