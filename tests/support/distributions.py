"""Tests of samples against their distributions."""

import numpy as np


def assert_uniform(samples: np.ndarray, lowest: float, highest: float) -> None:
    """Applies the Kolmogorov-Smirnov test, which a uniform sample fails once in 8,000."""
    expected = (np.sort(samples) - lowest) / (highest - lowest)
    ranks = (np.arange(len(samples)) + 0.5) / len(samples)
    assert np.abs(expected - ranks).max() < 2.2 / len(samples) ** 0.5


def assert_equally_frequent(samples: np.ndarray, outcomes: int) -> None:
    """Tests χ² of samples in [0, outcomes): five standard deviations."""
    counts = np.bincount(samples, minlength=outcomes)
    assert len(counts) == outcomes
    expected = len(samples) / outcomes
    chi_squared = np.sum((counts - expected) ** 2 / expected) / (outcomes - 1)
    assert abs(chi_squared - 1) < 5 * (2 / (outcomes - 1)) ** 0.5
