"""Copies the weights of one model into another, by path and shape."""

import dataclasses
from collections.abc import Mapping

import keras
import numpy as np

from trainer.errors import UserError
from trainer.nn import layer_paths, model_head

_FEW = 4  # Number of paths that a summary lists.


@dataclasses.dataclass(frozen=True)
class Transfer:
    """Result of copying weights from a source to a model; an example of a path is logits/kernel.

    Attributes:
      loaded: paths of the model's weights that have the source's values.
      new: paths of the model's weights that keep their initial values, each with the reason.
      left: paths of the source's weights that were not used, each with its shape.
      backbone: whether a weight outside the head was loaded; the head computes the logits.
      value_counts: number of scalar values in the loaded weights, and in the whole model.
    """

    loaded: list[str]
    new: dict[str, str]
    left: dict[str, str]
    backbone: bool
    value_counts: tuple[int, int]

    @property
    def mostly_new(self) -> bool:
        """Whether more weights are new than loaded: the source may then be of another model."""
        return len(self.loaded) < len(self.new)

    def summary(self) -> str:
        """Returns a line with the numbers of weights and values, and the first few paths."""
        loaded, whole = self.value_counts
        return (
            f"{len(self.loaded)} of {len(self.loaded) + len(self.new)} tensors are loaded, "
            f"{loaded:,} of {whole:,} values; new: {_listed(self.new)}; "
            f"left in the source: {_listed(self.left)}"
        )

    def table(self) -> str:
        """Returns a line for each weight: loaded, new or left, then path, then reason or shape."""
        rows = [("loaded", path, "") for path in self.loaded]
        rows += [("new", path, why) for path, why in self.new.items()]
        rows += [("left", path, shape) for path, shape in self.left.items()]
        return "".join("\t".join(row).rstrip() + "\n" for row in rows)


def transfer(
    model: keras.Model, source: Mapping[str, np.ndarray], *, with_head: bool = True
) -> Transfer:
    """Assigns to each weight of `model` the value in `source` with the same path and shape, if any.

    Args:
        model: the model to change; `layer_paths.weight_paths` defines its paths.
        source: values by path.
        with_head: whether to load also the head, the layers that compute the logits.

    Raises:
        UserError: if `with_head` is False, and it is not known which layers are the head.
    """
    head = model_head.head(model)
    if not (head or with_head):
        raise UserError(
            "--init_from: the source has learned other classes, and it is not known which layer of "
            "--model computes the logits.\n"
            "Compute them by a layer with a weight for each class, such as keras.layers.Dense."
        )
    loaded, new = [], {}
    size = whole = 0
    for path, variable in layer_paths.weight_paths(model).items():
        count = variable.value.shape.num_elements()
        whole += count
        of_head = path.rpartition("/")[0] in head
        if path not in source:
            new[path] = "not in the source"
        elif source[path].shape != tuple(variable.shape):
            new[path] = f"{_shape(variable.shape)}, and {_shape(source[path].shape)} in the source"
        elif of_head and not with_head:
            new[path] = "the source's logits are of other classes"
        else:
            variable.value.assign(source[path].astype(variable.dtype))
            loaded.append(path)
            size += count
    left = {path: _shape(value.shape) for path, value in source.items() if path not in loaded}
    backbone = any(path.rpartition("/")[0] not in head for path in loaded)
    return Transfer(loaded, new, left, backbone, (size, whole))


def _shape(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) or "scalar"


def _listed(paths: Mapping[str, str]) -> str:
    names = list(paths)
    more = f" and {len(names) - _FEW} more" if len(names) > _FEW else ""
    return ", ".join(names[:_FEW]) + more if names else "none"
