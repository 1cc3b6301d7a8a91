"""Parses --augment, a list of augmentations, and checks that they can be combined."""

import dataclasses

# Names of complete augmentations. The list --augment may contain at most one of these names.
PRESETS = ("none", "medium", "strong", "imagenet")
POLICIES = ("randaugment", "trivialaugment")
MIXING = ("mixup", "cutmix")
# Names of single augmentations. They are applied in this order, not in the order of the list.
ITEMS = ("crop", "flip", *POLICIES, "erasing", *MIXING)
# Maps a name to the items that cannot be in a list with this name.
_EXCLUDED = {
    "none": ITEMS,
    "medium": ("crop", "flip"),
    # The preset strong ends with erasing, and no other item may move or recolour an erased image.
    "strong": ("crop", "flip", *POLICIES, "erasing"),
    "imagenet": ("crop", "flip"),
    "randaugment": ("trivialaugment",),
}
# Maps a flag to the item of --augment that the flag configures.
FLAG_OF = {
    "randaugment_layers": "randaugment",
    "randaugment_magnitude": "randaugment",
    "erasing_probability": "erasing",
    "erasing_area": "erasing",
    "mixup_alpha": "mixup",
    "cutmix_alpha": "cutmix",
}


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Augmentation of training images: which changes are applied, and settings for these changes.

    The attributes from `resized_crop` to `mixing` are changes, in the order of their application.

    Attributes:
      resized_crop: a random part of each image is resized while the image is decoded, and half of
        the images are flipped.
      strong: the preset strong is applied: shift, flip, zoom, rotation, channel shift and erasing.
      crop: each image is padded, and cropped at a random place to its original size.
      flip: half of the images are mirrored.
      policy: randaugment or trivialaugment; "" if neither is applied.
      erasing: noise replaces a rectangle of some images.
      mixing: mixup, cutmix, both or neither. If both are present, one of the two is drawn for each
        ghost batch, a group of examples that share batch-norm statistics.
      layers: number of operations that randaugment applies to an image.
      magnitude: strength of randaugment's operations, from 0 to 10.
      erasing_probability: probability that a rectangle of an image is erased.
      erasing_area: smallest and largest area of the rectangle, as fractions of the image's area.
    """

    resized_crop: bool = False
    strong: bool = False
    crop: bool = False
    flip: bool = False
    policy: str = ""
    erasing: bool = False
    mixing: tuple[str, ...] = ()
    layers: int = 2
    magnitude: float = 9.0
    erasing_probability: float = 0.5
    erasing_area: tuple[float, float] = (0.02, 0.4)


def problem(text: str) -> str:
    """Returns why `text` cannot be a value of --augment; "" if it can."""
    names = names_in(text)
    for name in names:
        if name not in (*PRESETS, *ITEMS):
            return f"has no {name!r}: use {', '.join(PRESETS)}, or a list of {', '.join(ITEMS)}"
        if names.count(name) > 1:
            return f"has {name} twice: leave one out"
    if len(presets := [name for name in names if name in PRESETS]) > 1:
        return f"has {' and '.join(presets)}, which exclude each other: leave one out"
    for name in names:
        if excluded := [other for other in names if other in _EXCLUDED.get(name, ())]:
            return f"has {name}, which excludes {' and '.join(excluded)}: leave one of them out"
    return ""


def parse(
    text: str,
    *,
    layers: int = Augmentation.layers,
    magnitude: float = Augmentation.magnitude,
    erasing_probability: float = Augmentation.erasing_probability,
    erasing_area: tuple[float, float] = Augmentation.erasing_area,
) -> Augmentation:
    """Returns the augmentation that `text` names; `text` is a valid value of --augment."""
    names = names_in(text)
    return Augmentation(
        resized_crop="imagenet" in names,
        strong="strong" in names,
        crop="medium" in names or "crop" in names,
        flip="medium" in names or "flip" in names,
        policy="".join(name for name in POLICIES if name in names),
        erasing="erasing" in names,
        mixing=tuple(name for name in MIXING if name in names),
        layers=layers,
        magnitude=magnitude,
        erasing_probability=erasing_probability,
        erasing_area=erasing_area,
    )


def area_problem(text: str) -> str:
    """Returns why `text` cannot be a value of --erasing_area; "" if it can."""
    try:
        lowest, highest = area(text)
    except ValueError:
        return "must be two numbers, for example 0.02,0.4"
    return "" if 0 < lowest <= highest <= 1 else "must be two numbers, 0 < lowest <= highest <= 1"


def area(text: str) -> tuple[float, float]:
    """Returns the smallest and the largest area in `text`, a value of --erasing_area.

    Raises:
      ValueError: if `text` is not two numbers with a comma between them.
    """
    lowest, highest = map(float, text.split(","))
    return lowest, highest


def names_in(text: str) -> list[str]:
    """Returns the names in `text`, a value of --augment."""
    return [name.strip() for name in text.split(",")]
