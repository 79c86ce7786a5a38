"""How well a mask fits: the measures of evaluation, validation and the INT8 gate."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cxredge.libraries.open_cv import cv2

BOOTSTRAP_SAMPLES = 2000
BOOTSTRAP_SEED = 1


def dice(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Dice coefficient ``2·|P ∩ T| / (|P| + |T|)`` of two masks of one shape, in [0, 1]; 1 where both are empty."""
    total = int(predicted.sum()) + int(truth.sum())
    return 1.0 if total == 0 else 2 * int((predicted & truth).sum()) / total


def intersection_over_union(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """``|P ∩ T| / |P ∪ T|`` of two masks of one shape, in [0, 1]; 1 where both are empty."""
    union = int((predicted | truth).sum())
    return 1.0 if union == 0 else int((predicted & truth).sum()) / union


def true_positive_ratio(predicted: NDArray[np.bool_], abnormality: NDArray[np.bool_]) -> float:
    """Share ``|P ∩ A| / |A|`` of a labelled abnormality that the mask covers (paper, section 4.1).

    Raises:
        ValueError: the abnormality is empty.
    """
    area = int(abnormality.sum())
    if area == 0:
        raise ValueError("the true-positive ratio is undefined for an empty abnormality")
    return int((predicted & abnormality).sum()) / area


def hausdorff_95(predicted: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """95th percentile of the distances between the borders of two masks, in pixels.

    The larger of both directions. The image's diagonal where one mask is empty, 0 where both are.
    """
    if not predicted.any() or not truth.any():
        return 0.0 if predicted.any() == truth.any() else float(np.hypot(*truth.shape))
    borders = border(predicted), border(truth)
    there, back = (distance_to(b)[a] for a, b in (borders, borders[::-1]))
    return float(max(np.percentile(there, 95), np.percentile(back, 95)))


def border(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels of ``mask`` with a 4-neighbour outside it; beyond the image counts as outside."""
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    inside = cv2.erode(np.pad(mask.astype(np.uint8), 1), cross)[1:-1, 1:-1]
    return np.asarray(mask & ~inside.astype(bool))


def distance_to(mask: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Euclidean distance of every pixel to the nearest pixel of ``mask``."""
    outside = np.where(mask, 0, 1).astype(np.uint8)
    return np.asarray(cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32)


def bootstrap_interval(values: NDArray[np.float64], confidence: float = 0.95) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of ``values`` ``(N,)``, seeded."""
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    means = generator.choice(values, (BOOTSTRAP_SAMPLES, len(values))).mean(axis=1)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return float(low), float(high)
