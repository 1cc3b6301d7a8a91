"""Finds the examples of a split in TFDS's syntax: `train`, `train[:90%]` or `train+test`."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from trainer.errors import UserError

if TYPE_CHECKING:
    import tensorflow_datasets as tfds


def count_split(splits: Mapping[str, "tfds.core.SplitInfo"], split: str, dataset: str) -> int:
    """Returns the number of examples of a split; raises the same errors as `pieces`."""
    return sum(stop - start for _, start, stop in pieces(splits, split, dataset))


def pieces(
    splits: Mapping[str, "tfds.core.SplitInfo"], split: str, dataset: str
) -> list[tuple[str, int, int]]:
    """Returns the parts of `split`; each part lies within one of the dataset's `splits`.

    Returns:
        For each part: its split's name in `splits`, its first example's index, and its last
        example's index plus 1.

    Raises:
        UserError: if the split is ill-formed, unknown or empty.
    """
    import tensorflow_datasets as tfds

    # A split of a folder or a CSV file may have a name that TFDS cannot parse, such as "fold 1".
    if split in splits and splits[split].num_examples:
        return [(split, 0, splits[split].num_examples)]
    try:
        instructions = tfds.core.ReadInstruction.from_spec(split).to_absolute(splits)
    # TFDS raises NotImplementedError for a slice of all splits, such as all[:10%].
    except (NotImplementedError, ValueError) as error:
        raise _no_such_split(splits, split, dataset) from error
    found = []
    for piece in instructions:
        start = piece.from_ or 0
        stop = splits[piece.splitname].num_examples if piece.to is None else piece.to
        found.append((piece.splitname, start, max(start, stop)))
    if not any(stop > start for _, start, stop in found):
        raise _no_such_split(splits, split, dataset)
    return found


def count_shared(
    splits: Mapping[str, "tfds.core.SplitInfo"], first: str, second: str, dataset: str
) -> int:
    """Returns the number of examples in both `first` and `second`; raises as `pieces` does."""
    return sum(
        max(0, min(stop, other_stop) - max(start, other_start))
        for name, start, stop in pieces(splits, second, dataset)
        for other, other_start, other_stop in pieces(splits, first, dataset)
        if name == other
    )


def split_infos(sizes: Mapping[str, int]) -> dict[str, "tfds.core.SplitInfo"]:
    """Returns an argument `splits` for `pieces`; `sizes` has the number of examples per split."""
    import tensorflow_datasets as tfds

    return {
        name: tfds.core.SplitInfo(name=name, shard_lengths=[size], num_bytes=0)
        for name, size in sizes.items()
    }


def _no_such_split(
    splits: Mapping[str, "tfds.core.SplitInfo"], split: str, dataset: str
) -> UserError:
    known = ", ".join(f"{name} ({info.num_examples:,})" for name, info in splits.items())
    return UserError(
        f"split {split!r} of {dataset} is unknown, ill-formed or empty.\n"
        f"Choose one of {known}, or a slice or a sum, such as train[:90%] or train+test."
    )
