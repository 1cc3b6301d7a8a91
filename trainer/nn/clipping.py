"""Limits the Euclidean norm of a whole batch's gradient: Pascanu et al. 2013 (1211.5063).

The gradient is multiplied by min(1, C / (norm + 1e-6)), as in PyTorch's clip_grad_norm_. Here, C is
the limit, and the norm is taken over the gradients of all parameters together.
"""

from collections.abc import Sequence

import numpy as np
import tensorflow as tf

_EPSILON = 1e-6


def clip(gradients: Sequence[tf.Tensor], norm: tf.Tensor, most: float) -> list[tf.Tensor]:
    """Returns `gradients`, scaled down if their joint norm, `norm`, exceeds the limit `most`."""
    factor = most / (norm + _EPSILON)
    factor = tf.minimum(tf.ones_like(factor), factor)
    return [factor * gradient for gradient in gradients]


def clipped(norms: np.ndarray, most: float) -> np.ndarray:
    """Returns, for each norm in `norms`, whether `clip` scales a gradient with this norm down.

    `norms` are float32 [n]; the result is bool [n].
    """
    return np.float32(most) / (norms + np.float32(_EPSILON)) < 1
