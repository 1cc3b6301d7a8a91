"""Computes class weights, and describes the effects of --class_weights and --sampling.

With weights, the gradient of an update is Σ wᵢ ∇ᵢ / B, where B is the batch size, ∇ᵢ the gradient
of example i, and wᵢ the weight of the example's class. The weights are scaled so that their mean
over all training examples is 1. The divisor is B, not the sum of the batch's weights. So an example
has the same weight in every batch, and the number of replicas does not change an update. This
module does not import TensorFlow, because the import would delay the command `plan` by seconds.
"""

import math
from collections.abc import Mapping

from trainer.config.flags import Config
from trainer.data import csv_table
from trainer.data.class_names import few, printable
from trainer.errors import UserError
from trainer.system import typed_json
from trainer.system.typed_json import DamagedError, number, table_of

BALANCED = "balanced"
# Smaller or larger weights could make a gradient overflow or vanish in float32.
_LEAST, _MOST = 1e-9, 1e9


def class_weights(config: Config, counts: Mapping[str, int]) -> tuple[float, ...] | None:
    """Returns the weight of each class, or None if --class_weights is not set.

    The mean weight of the training examples is 1.

    Args:
      config: flags of the run.
      counts: number of training examples of each class, by name, in the order of the labels.

    Raises:
      UserError: if the file of weights cannot be used, or if --class_weights is balanced and a
        class has no examples.
    """
    if config.class_weights is None:
        return None
    if config.class_weights == BALANCED:
        check_not_empty("--class_weights=balanced", counts)
        weights = {name: 1 / number for name, number in counts.items()}
    else:
        weights = _read(config.class_weights)
        _check_names(config.class_weights, weights, counts)
    total = math.fsum(weights[name] * number for name, number in counts.items())
    return tuple(weights[name] * sum(counts.values()) / total for name in counts)


def check_not_empty(flag: str, counts: Mapping[str, int]) -> None:
    """Checks that each class has training examples.

    Raises:
      UserError: if a class has no examples. The message says that `flag` needs an example of each
        class.
    """
    if empty := [name for name, number in counts.items() if not number]:
        raise UserError(
            f"{flag} needs an example of each class, and the training set has none of "
            f"{few(empty)}.\nAdd some, or remove the class."
        )


def described(config: Config, counts: Mapping[str, int] | None) -> list[str]:
    """Returns one line for each of --class_weights and --sampling that the run uses.

    Each line says how the flag affects the noise scale g, the predicted strength of SGD's noise.

    Args:
      config: flags of the run.
      counts: as in `class_weights`; None if the numbers of examples are not known.

    Raises:
      UserError: if `class_weights` raises it, or if --sampling is balanced and a class is empty.
    """
    lines = []
    if config.class_weights is not None:
        weights = class_weights(config, counts) if counts else None
        if not counts and config.class_weights != BALANCED:
            _read(config.class_weights)
        sizes = "of mean 1 over the training set"
        noise = "; g keeps its formula, for the weighted loss"
        if counts and weights:
            sizes = f"{_extremes(dict(zip(counts, weights, strict=True)))}, of mean 1"
            pairs = zip(counts.values(), weights, strict=True)
            square = math.fsum(n * w**2 for n, w in pairs) / sum(counts.values())
            noise += (
                f". The mean squared weight is {square:.3g}: if all examples' gradients are "
                f"equally noisy, a batch of B is as noisy as one of B/{square:.3g} without weights"
            )
        lines.append(f"--class_weights={config.class_weights}: weights {sizes}{noise}")
    if config.sampling == BALANCED:
        times = "each class equally often"
        if counts:
            check_not_empty("--sampling=balanced", counts)
            epoch = sum(counts.values()) / len(counts)
            times = (
                "each class equally often, and each example "
                f"{_extremes({name: epoch / number for name, number in counts.items()})} times an "
                "epoch"
            )
        lines.append(
            f"--sampling=balanced: {times}; N, epoch and g are those of the training set, and the "
            "gradients are at most as noisy as with independent draws of equally frequent classes, "
            "because each round has each class once"
        )
    return lines


def _extremes(values: Mapping[str, float]) -> str:
    """Returns the smallest and the largest value as text, such as 0.505 (cat) to 50.5 (dog)."""
    least, most = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
    return f"{values[least]:.3g} ({printable(least)}) to {values[most]:.3g} ({printable(most)})"


def _read(path: str) -> dict[str, float]:
    """Reads the weight of each class, by name, from a .json or .csv file.

    Raises:
      UserError: if the file cannot be read, has another suffix, or has a weight that is not a
        number in the allowed range.
    """
    suffix = path.lower().rpartition(".")[2]
    if suffix not in ("json", "csv"):
        raise UserError(
            f"--class_weights={path} is not balanced, and does not end in .json or .csv.\n"
            'Write {"cat": 2, "dog": 1} into a .json file, or columns class and weight into a '
            ".csv file."
        )
    return _read_json(path) if suffix == "json" else _read_csv(path)


def _check_names(path: str, weights: Mapping[str, float], counts: Mapping[str, int]) -> None:
    missing = [name for name in counts if name not in weights]
    unknown = [name for name in weights if name not in counts]
    if missing or unknown:
        raise UserError(
            f"--class_weights={path} has other classes than the training set: missing "
            f"{few(missing) or 'none'}; unknown {few(unknown) or 'none'}.\n"
            "Give a weight for each class of the training set, by its name."
        )


def _read_json(path: str) -> dict[str, float]:
    try:
        return typed_json.read(path, table_of(number(_LEAST, _MOST)))
    except (DamagedError, OSError) as error:
        raise UserError(
            f"--class_weights={path} {typed_json.problem(error)}.\n"
            'Write the weight of each class by its name, as in {"cat": 2, "dog": 1}.'
        ) from error


def _read_csv(path: str) -> dict[str, float]:
    table = csv_table.read(path)
    name_at = table.column("class", ("class", "label", "class_name", "category"))
    weight_at = table.column("weight", ("weight",))
    assert name_at is not None
    assert weight_at is not None
    weights: dict[str, float] = {}
    for line, values in table.rows:
        name, text = values[name_at].strip(), values[weight_at]
        try:
            weight = float(text)
        except ValueError:
            weight = math.nan
        if not _LEAST <= weight <= _MOST:
            problem = f"{printable(text)} is not a number from {_LEAST:g} to {_MOST:g}"
            raise table.error(line, problem, "Write a weight above 0.")
        if name in weights:
            raise table.error(line, f"{printable(name)} has two weights", "Delete one line.")
        weights[name] = weight
    return weights
