"""Metrics that the devices compute for the updates of a stretch, a series of updates."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class UpdateMetrics:
    """Metrics of the n updates of a stretch.

    Attributes:
      loss: mean loss of each batch before its update, float [n].
      top1: fraction of each batch's examples whose label has the largest logit, float [n]. The
        label of a mixed image is the label with the larger share.
      gradient_norm: Euclidean norm of each update's gradient before it is clipped, float [n]. The
        gradient includes the gradient of the regularizers.
      micro_batch_sq_norm: squared norm of a micro-batch's mean gradient without the regularizers,
        averaged over the micro-batches of each update, float [n].
      batch_sq_norm: squared norm of each batch's mean gradient without the regularizers, float [n].
      seconds: duration of the stretch, without the time to trace its graph.
      input_wait: seconds of the stretch that the device waited for examples; None: not timed.
      clipped: whether each update's gradient was clipped, bool [n]; None without --clip_norm.
      metric_sq_norms: micro_batch_sq_norm and batch_sq_norm in the optimizer's metric, which
        multiplies each squared element by a factor. Both are 0 in the optimizer's first update. The
        attribute is None if the optimizer has no metric.
    """

    loss: np.ndarray
    top1: np.ndarray
    gradient_norm: np.ndarray
    micro_batch_sq_norm: np.ndarray
    batch_sq_norm: np.ndarray
    seconds: float
    input_wait: float | None
    clipped: np.ndarray | None = None
    metric_sq_norms: tuple[np.ndarray, np.ndarray] | None = None
