"""How well a mask fits: the measures of the paper, for evaluation, validation and the INT8 gate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def dice(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Dice coefficient ``2·|P ∩ T| / (|P| + |T|)`` of two masks of one shape, in [0, 1]; 1 where both are empty."""
    total = int(predicted.sum()) + int(truth.sum())
    return 1.0 if total == 0 else 2 * int((predicted & truth).sum()) / total


def true_positive_ratio(predicted: NDArray[np.bool_], abnormality: NDArray[np.bool_]) -> float:
    """Share ``|P ∩ A| / |A|`` of a labelled abnormality that the mask covers (paper, section 4.1).

    Raises:
        ValueError: the abnormality is empty.
    """
    area = int(abnormality.sum())
    if area == 0:
        raise ValueError("the true-positive ratio is undefined for an empty abnormality")
    return int((predicted & abnormality).sum()) / area
