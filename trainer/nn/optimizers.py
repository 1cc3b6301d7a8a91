"""Optimizers, as the direction in which they move a parameter: w ← w − ε · direction.

The learning rate stays outside of the velocity, so that a change of ε needs no correction of it
(Goyal et al. 2017, remark 2). Weight decay is coupled L2, λ w added to the gradient, but for lamb,
whose paper adds it to the normalised gradient.
"""

import dataclasses
from collections.abc import Callable, Sequence

import tensorflow as tf

Slots = tuple[tf.Tensor, ...]

_BETA2 = 0.999  # the default of Kingma & Ba's algorithm 1, and of You et al. 2019
_ADAM_EPSILON = 1e-8  # the same algorithm's
_LAMB_EPSILON = 1e-6  # TensorFlow Addons'; algorithm 2 leaves it open
_LARS_TRUST = 0.001  # η, the trust coefficient of You et al. 2017


@dataclasses.dataclass(frozen=True)
class Update:
    """What one update of one parameter is made from.

    Attributes:
      parameter: w before the update, whole: LARS and LAMB take its norm.
      gradient: ∇, the mean over the batch, of w's shape.
      momentum: m, []; β₁ of adam and lamb. It may change from update to update.
      weight_decay: λ of the run, which moves only what `decays`.
    """

    parameter: tf.Tensor
    gradient: tf.Tensor
    momentum: tf.Tensor
    weight_decay: float

    def decayed(self, gradient: tf.Tensor) -> tf.Tensor:
        """`gradient` + λ w, or `gradient` alone where w does not decay."""
        if self.weight_decay and decays(self.parameter):
            return gradient + self.weight_decay * self.parameter
        return gradient


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """How a parameter is updated.

    Attributes:
      direction: (update, slots) → (direction, new slots).
      slots: how many tensors of the parameter's shape it keeps.
      scalars: how many numbers it keeps after them.
    """

    direction: Callable[[Update, Slots], tuple[tf.Tensor, Slots]]
    slots: int = 0
    scalars: int = 0

    def start(self, parameter: tf.Tensor) -> Slots:
        """The slots of `parameter` before its first update, all zero."""
        tensors = [tf.zeros_like(parameter) for _ in range(self.slots)]
        return (*tensors, *(tf.zeros([], parameter.dtype) for _ in range(self.scalars)))

    def move(
        self,
        parameter: tf.Variable,
        slots: Sequence[tf.Variable],
        update: Update,
        learning_rate: tf.Tensor,
        constraint: Callable[[tf.Tensor], tf.Tensor] | None,
    ) -> None:
        """Moves a parameter and its slots by one update, within the parameter's constraint."""
        direction, new = self.direction(update, tuple(slot.read_value() for slot in slots))
        for slot, value in zip(slots, new, strict=True):
            slot.assign(value)
        parameter.assign_sub(learning_rate * direction)
        if constraint is not None:  # As Keras' optimizers do.
            parameter.assign(constraint(parameter.read_value()))


def _sgd(update: Update, slots: Slots) -> tuple[tf.Tensor, Slots]:
    return update.decayed(update.gradient), slots


def _momentum(update: Update, slots: Slots) -> tuple[tf.Tensor, Slots]:
    """u ← m u + ∇, direction u."""
    velocity = update.momentum * slots[0] + update.decayed(update.gradient)
    return velocity, (velocity,)


def _nesterov(update: Update, slots: Slots) -> tuple[tf.Tensor, Slots]:
    """u ← m u + ∇, direction ∇ + m u; Sutskever et al. 2013, in the form without a look-ahead."""
    gradient = update.decayed(update.gradient)
    velocity = update.momentum * slots[0] + gradient
    return gradient + update.momentum * velocity, (velocity,)


def _adam(update: Update, slots: Slots) -> tuple[tf.Tensor, Slots]:
    """m̂ / (√v̂ + 1e-8): Kingma & Ba 2015 (1412.6980), algorithm 1."""
    gradient = update.decayed(update.gradient)
    return _normalised(gradient, update.momentum, slots, _ADAM_EPSILON)


def _lars(update: Update, slots: Slots) -> tuple[tf.Tensor, Slots]:
    """u ← m u + η ‖w‖ / (‖∇‖ + λ ‖w‖) · (∇ + λ w), direction u: You et al. 2017 (1708.03888),
    algorithm 1, but for ε, which is outside of the velocity here."""
    gradient = update.decayed(update.gradient)
    if decays(update.parameter):
        size, slope = tf.norm(update.parameter), tf.norm(update.gradient)
        trust = _LARS_TRUST * size / (slope + update.weight_decay * size)
        gradient *= _where_nonzero(size, slope, trust)
    velocity = update.momentum * slots[0] + gradient
    return velocity, (velocity,)


def _lamb(update: Update, slots: Slots) -> tuple[tf.Tensor, Slots]:
    """‖w‖ / ‖r + λ w‖ · (r + λ w) with r = m̂ / (√v̂ + 1e-6): You et al. 2019 (1904.00962),
    algorithm 2 with φ(z) = z and the bias correction."""
    normalised, slots = _normalised(update.gradient, update.momentum, slots, _LAMB_EPSILON)
    direction = update.decayed(normalised)
    if decays(update.parameter):
        size, length = tf.norm(update.parameter), tf.norm(direction)
        direction *= _where_nonzero(size, length, size / length)
    return direction, slots


def _normalised(
    gradient: tf.Tensor, beta1: tf.Tensor, slots: Slots, epsilon: float
) -> tuple[tf.Tensor, Slots]:
    """m̂ / (√v̂ + epsilon) of the moments in `slots`, which are averages that started at zero.

    The bias corrections are what the same averages make of ones. That is 1 − ∏ β₁, which is right
    where β₁ changes over the run, and rounds as the moments do: in float32, 1 − 0.999ᵗ would be off
    by 1e-5 of them.
    """

    def average(old: tf.Tensor, new: tf.Tensor | float, beta: tf.Tensor | float) -> tf.Tensor:
        return beta * old + (1 - beta) * new

    mean, square, mean_of_ones, square_of_ones = slots
    mean = average(mean, gradient, beta1)
    square = average(square, tf.square(gradient), _BETA2)
    mean_of_ones = average(mean_of_ones, 1.0, beta1)
    square_of_ones = average(square_of_ones, 1.0, _BETA2)
    direction = mean / mean_of_ones / (tf.sqrt(square / square_of_ones) + epsilon)
    return direction, (mean, square, mean_of_ones, square_of_ones)


def _where_nonzero(size: tf.Tensor, other: tf.Tensor, trust: tf.Tensor) -> tf.Tensor:
    """The trust ratio, or 1 where a norm is 0: a kernel of zeros would never move."""
    return tf.where((size > 0) & (other > 0), trust, tf.ones_like(trust))


OPTIMIZERS = {
    "sgd": Optimizer(_sgd),
    "momentum": Optimizer(_momentum, slots=1),
    "nesterov": Optimizer(_nesterov, slots=1),
    "adam": Optimizer(_adam, slots=2, scalars=2),
    "lars": Optimizer(_lars, slots=1),
    "lamb": Optimizer(_lamb, slots=2, scalars=2),
}


def decays(parameter: tf.Variable | tf.Tensor) -> bool:
    """Whether weight decay applies, and the trust ratios of lars and lamb: to kernels, rank 2 and
    more, not to biases and norm scales."""
    return len(parameter.shape) > 1
