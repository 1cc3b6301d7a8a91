"""Optimizers: each computes the direction of an update, w ← w − ε · direction.

Here, w is a parameter, ε the learning rate, m the momentum, ∇ the gradient, u the velocity and λ
the weight decay. m̂ and v̂ are the moving averages of ∇ and of its elementwise square, corrected
for their start at zero. The velocity does not contain the learning rate, so the momentum needs no
correction when ε changes (Goyal et al. 2017, remark 2). Weight decay is coupled (L2): λ w is added
to the gradient. But adamw and lamb add λ w to the normalised gradient m̂ / √v̂, as in their papers.
"""

import dataclasses
from collections.abc import Callable

import tensorflow as tf

Slots = tuple[tf.Tensor, ...]

_BETA2 = 0.999  # Default β₂ of Kingma & Ba 2015, algorithm 1, and of You et al. 2019.
_ADAM_EPSILON = 1e-8  # Default of Kingma & Ba 2015, algorithm 1.
_LAMB_EPSILON = 1e-6  # Default of TensorFlow Addons; You et al. 2019 do not give a value.
_LARS_TRUST = 0.001  # The trust coefficient η of You et al. 2017.


@dataclasses.dataclass(frozen=True)
class Update:
    """Inputs of one update of one parameter.

    Attributes:
      parameter: w before the update; the whole tensor, because LARS and LAMB take its norm.
      gradient: ∇, the mean over the batch's examples, with w's shape.
      momentum: m, which is β₁ in adam, adamw and lamb; a scalar that may change between updates.
      weight_decay: λ of the run, which applies only if `decays` returns True for the parameter.
    """

    parameter: tf.Tensor
    gradient: tf.Tensor
    momentum: tf.Tensor
    weight_decay: float

    def decayed(self, gradient: tf.Tensor) -> tf.Tensor:
        """Returns `gradient` + λ w, or `gradient` if weight decay does not apply to w."""
        if self.weight_decay and decays(self.parameter):
            return gradient + self.weight_decay * self.parameter
        return gradient


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """Rule that updates a parameter. A slot is a tensor that the rule keeps for each parameter.

    Attributes:
      direction: function (update, slots) → (direction, new slots).
      slots: number of slots with the shape of the parameter.
      scalars: number of scalar slots, which come after the other slots.
      metric: function from the slots to a factor for each element of a gradient. The optimizer
        scales the elements by these factors, 1 / (√v̂ + 1e-8) in adam. None if the optimizer
        scales all elements of a gradient alike.
    """

    direction: Callable[[Update, Slots], tuple[tf.Tensor, Slots]]
    slots: int = 0
    scalars: int = 0
    metric: Callable[[Slots], tf.Tensor] | None = None

    def start(self, parameter: tf.Tensor) -> Slots:
        """Returns the slots of `parameter` before its first update: zeros."""
        tensors = [tf.zeros_like(parameter) for _ in range(self.slots)]
        return (*tensors, *(tf.zeros([], parameter.dtype) for _ in range(self.scalars)))

    def moved(
        self,
        update: Update,
        slots: Slots,
        learning_rate: tf.Tensor,
        constraint: Callable[[tf.Tensor], tf.Tensor] | None,
    ) -> tuple[tf.Tensor, Slots]:
        """Returns a parameter and its slots after one update; applies the constraint, if any."""
        direction, slots = self.direction(update, slots)
        parameter = update.parameter - learning_rate * direction
        # Keras' optimizers also apply a constraint after the update.
        return (parameter if constraint is None else constraint(parameter)), slots


def _sgd(update: Update, slots: Slots) -> tuple[tf.Tensor, Slots]:
    return update.decayed(update.gradient), slots


def _momentum(update: Update, slots: Slots) -> tuple[tf.Tensor, Slots]:
    """Updates u ← m u + ∇; the direction is u."""
    velocity = update.momentum * slots[0] + update.decayed(update.gradient)
    return velocity, (velocity,)


def _nesterov(update: Update, slots: Slots) -> tuple[tf.Tensor, Slots]:
    """Updates u ← m u + ∇; the direction is ∇ + m u (Sutskever et al. 2013, without look-ahead)."""
    gradient = update.decayed(update.gradient)
    velocity = update.momentum * slots[0] + gradient
    return gradient + update.momentum * velocity, (velocity,)


def _adam(update: Update, slots: Slots) -> tuple[tf.Tensor, Slots]:
    """Returns the direction m̂ / (√v̂ + 1e-8): Kingma & Ba 2015 (1412.6980), algorithm 1."""
    gradient = update.decayed(update.gradient)
    return _normalised(gradient, update.momentum, slots, _ADAM_EPSILON)


def _adamw(update: Update, slots: Slots) -> tuple[tf.Tensor, Slots]:
    """Returns the direction m̂ / (√v̂ + 1e-8) + λ w.

    This is algorithm 2 of Loshchilov & Hutter 2019 (1711.05101) with one change: the learning rate
    also multiplies λ w, as in torch.optim.AdamW.
    """
    normalised, slots = _normalised(update.gradient, update.momentum, slots, _ADAM_EPSILON)
    return update.decayed(normalised), slots


def _lars(update: Update, slots: Slots) -> tuple[tf.Tensor, Slots]:
    """Updates u ← m u + η ‖w‖ / (‖∇‖ + λ ‖w‖) · (∇ + λ w); the direction is u.

    This is algorithm 1 of You et al. 2017 (1708.03888), but the velocity does not contain ε.
    """
    gradient = update.decayed(update.gradient)
    if decays(update.parameter):
        size, slope = tf.norm(update.parameter), tf.norm(update.gradient)
        trust = _LARS_TRUST * size / (slope + update.weight_decay * size)
        gradient *= _where_nonzero(size, slope, trust)
    velocity = update.momentum * slots[0] + gradient
    return velocity, (velocity,)


def _lamb(update: Update, slots: Slots) -> tuple[tf.Tensor, Slots]:
    """Returns the direction ‖w‖ / ‖r + λ w‖ · (r + λ w) with r = m̂ / (√v̂ + 1e-6).

    This is algorithm 2 of You et al. 2019 (1904.00962) with φ(z) = z and the bias correction.
    """
    normalised, slots = _normalised(update.gradient, update.momentum, slots, _LAMB_EPSILON)
    direction = update.decayed(normalised)
    if decays(update.parameter):
        size, length = tf.norm(update.parameter), tf.norm(direction)
        direction *= _where_nonzero(size, length, size / length)
    return direction, slots


def _normalised(
    gradient: tf.Tensor, beta1: tf.Tensor, slots: Slots, epsilon: float
) -> tuple[tf.Tensor, Slots]:
    """Returns m̂ / (√v̂ + epsilon) and the new slots: moving averages that start at zero.

    The averages of the gradient and of its square have a bias, because they start at zero. To
    correct this, each average is divided by a moving average of ones with the same β. For the
    gradient, this divisor is 1 − ∏ β₁, which is right even if β₁ changes. A divisor has the same
    rounding errors as the average that it divides. In float32, the formula 1 − 0.999ᵗ for t updates
    would differ from the divisor by a relative 1e-5.
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


def _metric(epsilon: float) -> Callable[[Slots], tf.Tensor]:
    """Returns a function that computes 1 / (√v̂ + epsilon) from the slots of `_normalised`.

    The factor of an element is 0 if its v̂ is 0, as before the first update.
    """

    def factors(slots: Slots) -> tf.Tensor:
        _, square, _, square_of_ones = slots
        known = square > 0
        root = tf.sqrt(tf.math.divide_no_nan(square, square_of_ones))
        return tf.where(known, 1 / (root + epsilon), tf.zeros_like(root))

    return factors


def _where_nonzero(size: tf.Tensor, other: tf.Tensor, trust: tf.Tensor) -> tf.Tensor:
    """Returns `trust`, or 1 if a norm is 0; with trust 0, a kernel of zeros would never change."""
    return tf.where((size > 0) & (other > 0), trust, tf.ones_like(trust))


OPTIMIZERS = {
    "sgd": Optimizer(_sgd),
    "momentum": Optimizer(_momentum, slots=1),
    "nesterov": Optimizer(_nesterov, slots=1),
    "adam": Optimizer(_adam, slots=2, scalars=2, metric=_metric(_ADAM_EPSILON)),
    "adamw": Optimizer(_adamw, slots=2, scalars=2, metric=_metric(_ADAM_EPSILON)),
    "lars": Optimizer(_lars, slots=1),
    "lamb": Optimizer(_lamb, slots=2, scalars=2, metric=_metric(_LAMB_EPSILON)),
}


def decays(parameter: tf.Variable | tf.Tensor) -> bool:
    """Returns True if weight decay and the trust ratios of lars and lamb apply to a parameter.

    They apply to parameters of rank 2 or more. So they apply to kernels, but not to most biases or
    to batch-norm scales, which have rank 1. In Keras' MultiHeadAttention, the biases of queries,
    keys and values have rank 2. A trust ratio is the factor with the norm ‖w‖ in the direction of
    lars or lamb.
    """
    return len(parameter.shape) > 1
