"""Whether samples are chest radiographs: the FP32 model must find two lungs in most of them.

Whatever one shows to a segmenter, it finds something. What it finds in chest radiographs, though, is two
compact regions, one on each side, almost without crumbs. Of 210 training radiographs of three data sets
(JSRT, Cohen, NIH) 99 % are accepted by :func:`shows_two_lungs`; of 70 noise images (white, smooth, 1/f) 6 %,
of pictures and gradients none.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from cxredge.errors import CalibrationError
from cxredge.libraries.open_cv import cv2
from cxredge.postprocessing import CONNECTIVITY, LUNGS, clean_logits, component_count

SMALLEST_LUNG = 0.02
"""Share of the image that a lung fills at least."""
LEAST_SOLIDITY = 0.7
"""Area of a lung over the area of its convex hull, at least."""
MOST_CRUMBS = 10
"""Connected components before post-processing, at most; radiographs have 2 to 10, noise mostly 15 to 70."""
MOST_CHANGED = 0.05
"""Share of the lungs' area that post-processing changes, at most."""
LEAST_SHARE = 0.7
"""Share of the samples that must show two lungs."""
MOST_NAMED = 5


def shows_two_lungs(logits: NDArray[np.float32]) -> bool:
    """Whether lung logits ``(S, S)`` of an FP32 model look like those of a chest radiograph."""
    raw, mask = logits > 0, clean_logits(logits) > 0
    if component_count(raw) > MOST_CRUMBS or (raw != mask).sum() > MOST_CHANGED * mask.sum():
        return False
    count, labels, statistics, centres = cv2.connectedComponentsWithStats(
        mask.astype(np.uint8), connectivity=CONNECTIVITY
    )
    if count - 1 != LUNGS or statistics[1:, cv2.CC_STAT_AREA].min() < SMALLEST_LUNG * mask.size:
        return False
    if not centres[1:, 0].min() < mask.shape[1] / 2 < centres[1:, 0].max():
        return False
    return all(solidity(labels == lung) >= LEAST_SOLIDITY for lung in range(1, count))


def solidity(region: NDArray[np.bool_]) -> float:
    """Area of a region over that of its convex hull, in [0, 1]."""
    outlines, _ = cv2.findContours(region.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    outline = max(outlines, key=cv2.contourArea)
    hull = cv2.contourArea(cv2.convexHull(outline))
    return float(cv2.contourArea(outline) / hull) if hull > 0 else 0.0


def require_chest_radiographs(names: Sequence[str], plausible: Sequence[bool]) -> None:
    """Refuse samples of which too many show no two lungs.

    Args:
        names: of the samples, at least one.
        plausible: whether each shows two lungs.

    Raises:
        CalibrationError: too many do not; the message names some.
    """
    strange = [name for name, fine in zip(names, plausible, strict=True) if not fine]
    if len(strange) > (1 - LEAST_SHARE) * len(names):
        listed = ", ".join(strange[:MOST_NAMED]) + (", ..." if len(strange) > MOST_NAMED else "")
        raise CalibrationError(
            f"the model finds no two lungs in {len(strange)} of {len(names)} samples ({listed}); calibrate on frontal "
            "chest radiographs such as the model was trained on, with a model that segments them"
        )
