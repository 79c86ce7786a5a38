"""From the network's logits to a lung mask at the radiograph's own size.

Paper, section 4.1: threshold, keep the two largest connected components, fill holes. The cleaning is
done on the logits at network size; then they are scaled bilinearly to the source size and thresholded
at 0. Sampling can break a thin bridge, so the scaled mask is cleaned again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cxredge.libraries.open_cv import cv2

LUNGS = 2
"""Connected components that are kept."""
CONNECTIVITY = 4
"""Of foreground and background: what is 4-connected stays connected under bilinear scaling."""
SMALLEST_LOGIT = np.float32(1e-3)
"""Magnitude given to a logit that changes sides at exactly 0."""


def lung_mask(logits: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Segment the lungs.

    Args:
        logits: ``(S, S)`` lung logits of the network.
        shape: (height, width) of the radiograph.

    Returns:
        ``(height, width)`` mask, True inside the lungs: at most two components, without holes.
    """
    return scale_mask(clean_logits(logits), shape)


def scale_mask(logits: NDArray[np.float32], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Mask ``(height, width)`` of clean logits ``(S, S)``: scaled bilinearly, thresholded at 0, cleaned again.

    What lies beyond the lungs' bounding box is connected to the border, so that only the box is cleaned.
    """
    height, width = shape
    mask = cv2.resize(logits, (width, height), interpolation=cv2.INTER_LINEAR) > 0
    left, top, columns, rows = cv2.boundingRect(mask.view(np.uint8))
    box = mask[top : top + rows, left : left + columns]
    if box.size:
        box[:] = fill_holes(largest_components(box))
    return np.asarray(mask, np.bool_)


def clean_logits(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Turn the sign of every logit that cleaning moves into or out of the mask; all others stay."""
    raw = logits > 0
    clean = fill_holes(largest_components(raw))
    magnitude = np.maximum(np.abs(logits), SMALLEST_LOGIT)
    return np.where(clean == raw, logits, np.where(clean, magnitude, -magnitude)).astype(np.float32)


def largest_components(mask: NDArray[np.bool_], count: int = LUNGS) -> NDArray[np.bool_]:
    """Keep the ``count`` connected components of ``mask`` with the largest areas."""
    components, labels = cv2.connectedComponents(mask.view(np.uint8), connectivity=CONNECTIVITY, ltype=cv2.CV_32S)
    if components - 1 <= count:
        return mask
    areas = np.bincount(labels[mask])[1:]
    kept = np.zeros(components, np.bool_)
    kept[1 + np.argsort(-areas, kind="stable")[:count]] = True
    return np.asarray(kept[labels], np.bool_)


def fill_holes(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Fill every 4-connected background region of ``mask`` that does not reach the image's border."""
    filled = mask.astype(np.uint8)
    outlines, _ = cv2.findContours(filled, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(filled, outlines, -1, 1, cv2.FILLED)
    return filled.view(np.bool_)


def component_count(mask: NDArray[np.bool_]) -> int:
    """Number of connected components of ``mask``."""
    count, _ = cv2.connectedComponents(mask.astype(np.uint8), connectivity=CONNECTIVITY)
    return int(count) - 1
