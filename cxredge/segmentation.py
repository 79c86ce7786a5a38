"""A radiograph on its way through the stages, and the lungs that are found in it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cxredge.quality.measurements import Measurements
from cxredge.radiograph import Radiograph


@dataclass(frozen=True)
class Segmentation:
    """The lungs of one radiograph.

    Attributes:
        radiograph: what was segmented; with the other polarity than it was given where that was corrected.
        mask: ``(H, W)`` bool at the radiograph's own size, True inside the lungs.
        logits: ``(S, S)`` float32 lung logits of the network, before post-processing.
        flags: reasons to look at the result: the header's notes, ``inverted_polarity`` where the radiograph was
            corrected, and what :mod:`cxredge.quality.flags` finds.
        milliseconds: time spent by stage: ``read``, ``preprocess``, ``inference``, ``postprocess``.
        measurements: areas of the left and the right lung, their ratio and symmetry.
    """

    radiograph: Radiograph
    mask: NDArray[np.bool_]
    logits: NDArray[np.float32]
    flags: tuple[str, ...]
    milliseconds: dict[str, float]
    measurements: Measurements

    @property
    def lung_area_fraction(self) -> float:
        """Share of the image that is lung, in [0, 1]."""
        return float(self.mask.mean())

    @property
    def lung_area_mm2(self) -> float | None:
        """Lung area in square millimetres in the plane of the spacing, or ``None`` where it is unknown."""
        area = self.radiograph.pixel_area_mm2
        return None if area is None else area * int(self.mask.sum())


@dataclass(frozen=True)
class Prepared:
    """A radiograph on its way.

    Attributes:
        radiograph: with its polarity corrected where that was needed.
        input: ``(S, S)`` network input.
        milliseconds: time it took so far, by stage.
        flags: what was found until here.
    """

    radiograph: Radiograph
    input: NDArray[np.float32]
    milliseconds: dict[str, float]
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Inferred:
    """Logits ``(S, S)`` of one radiograph and its share of the batch's time in milliseconds."""

    logits: NDArray[np.float32]
    milliseconds: float
