"""Optimizers, as the direction in which they move a parameter: w ← w − ε · direction.

The learning rate stays outside of the velocity, so that a change of ε needs no correction of it
(Goyal et al. 2017, remark 2).
"""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

Slots = tuple[tf.Tensor, ...]


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """What a parameter's update is made of.

    Attributes:
      slots: how many tensors of the parameter's shape it keeps, zero at the start.
      direction: (gradient, slots, momentum) → (direction, new slots).
    """

    slots: int
    direction: Callable[[tf.Tensor, Slots, tf.Tensor], tuple[tf.Tensor, Slots]]


def _sgd(gradient: tf.Tensor, slots: Slots, momentum: tf.Tensor) -> tuple[tf.Tensor, Slots]:
    return gradient, slots


def _momentum(gradient: tf.Tensor, slots: Slots, momentum: tf.Tensor) -> tuple[tf.Tensor, Slots]:
    """u ← m u + ∇, direction u."""
    velocity = momentum * slots[0] + gradient
    return velocity, (velocity,)


def _nesterov(gradient: tf.Tensor, slots: Slots, momentum: tf.Tensor) -> tuple[tf.Tensor, Slots]:
    """u ← m u + ∇, direction ∇ + m u; Sutskever et al. 2013, in the form without a look-ahead."""
    velocity = momentum * slots[0] + gradient
    return gradient + momentum * velocity, (velocity,)


OPTIMIZERS = {
    "sgd": Optimizer(0, _sgd),
    "momentum": Optimizer(1, _momentum),
    "nesterov": Optimizer(1, _nesterov),
}


def decays(parameter: tf.Variable) -> bool:
    """Whether weight decay applies: to kernels, rank 2 and more, not to biases and norm scales."""
    return len(parameter.shape) > 1
