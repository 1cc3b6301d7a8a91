"""Names the reasons for which a run stops before its end. This module does not use TensorFlow."""

import enum


class StopReason(enum.Enum):
    """Reasons why a run stops before its end; it writes a checkpoint before it stops."""

    SIGNAL = "a signal to any of the processes"
    EPOCH = "--stop_at_epoch"
    WORKERS = "--workers: the run should go on with another number of workers"
