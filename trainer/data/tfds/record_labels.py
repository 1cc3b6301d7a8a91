"""Reads the labels of a set that is prepared as ArrayRecord, without decoding its images."""

from collections.abc import Callable, Mapping

import numpy as np
import tensorflow as tf

from trainer.system.output import log

_RECORDS_AT_ONCE = 256


def read(
    records_at: Callable[[np.ndarray], np.ndarray],
    examples: int,
    label_key: str,
    place_of: np.ndarray,
    name: str,
) -> np.ndarray:
    """Reads all records of a split, and returns their labels, int64 [N].

    Args:
        records_at: function from indices, int64 [n], to records, bytes [n]; a record that cannot
            be read is b"".
        examples: N, the number of records in the split.
        label_key: name of the label's feature.
        place_of: labels to return. Element i replaces the stored label i. The last element is the
            label of records without a valid stored label.
        name: name of the split for messages.
    """
    log(f"reading the labels of the {examples:,} records of {name}")
    label_of = {label_key: tf.io.FixedLenFeature((), tf.int64, -1)}
    found = []
    for start in range(0, examples, _RECORDS_AT_ONCE):
        indices = np.arange(start, min(start + _RECORDS_AT_ONCE, examples))
        records = tf.constant(records_at(indices), tf.string)
        found.append(_own(records, label_of))
    own = np.concatenate(found)
    none = len(place_of) - 1
    return place_of[np.where((own >= 0) & (own < none), own, none)].astype(np.int64)


def _own(records: tf.Tensor, label_of: Mapping[str, tf.io.FixedLenFeature]) -> np.ndarray:
    """Returns the stored label of each record, or −1 if the record is damaged or has no label."""
    try:
        (labels,) = tf.io.parse_example(records, label_of).values()
        return labels.numpy()
    except tf.errors.InvalidArgumentError:
        if len(records) == 1:
            return np.array([-1])
        return np.concatenate([_own(records[i : i + 1], label_of) for i in range(len(records))])
