"""Reasons to look at a result: what is found in image, logits and mask, against what is usual for the model.

This is the one home of the flags: single calls, streams, evaluation and ``segment`` all get them here, through
:class:`cxredge.segmenter.Segmenter`. docs/flags.md says what each means and how well it does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from cxredge.quality.evidence import Box, Image, Vector, content_box, inverted_layout, layout, mask_traits
from cxredge.quality.measurements import Measurements
from cxredge.quality.reference import (
    BEYOND_IMAGE,
    FRAGMENTED,
    HUGE_LUNG,
    INVERTED_POLARITY,
    LAYOUT,
    LIMITED,
    LOW_MARGIN,
    NOT_FRONTAL,
    OUT_OF_DISTRIBUTION,
    RAGGED,
    SHAPE,
    SIGNAL,
    TINY_LUNG,
    TOUCHES_BORDER,
    UNUSUAL_SHAPE,
    Reference,
)
from cxredge.quality.typicality import Gaussian
from cxredge.radiograph import Radiograph

NO_LUNG, ONE_LUNG, JOINED_LUNGS = "no_lung", "one_lung", "joined_lungs"
BASIC = (NO_LUNG, ONE_LUNG, JOINED_LUNGS)
"""Flags that need no thresholds."""
FLAGS = (*BASIC, *LIMITED)
BELOW = frozenset({TINY_LUNG})
"""Flags of numbers that are too small; all others are of numbers that are too large."""


@dataclass(frozen=True)
class Finding:
    """Numbers about one result.

    Attributes:
        layout: ``(80,)``, see :func:`cxredge.quality.evidence.layout`.
        vectors: descriptions of the mask by name; empty without a lung.
        numbers: what is compared with a threshold as it is, by flag; empty without a lung.
    """

    layout: Vector
    vectors: dict[str, Vector]
    numbers: dict[str, float]


def find(image: Image, logits: Image, clean: NDArray[np.bool_], measurements: Measurements, pixels: int) -> Finding:
    """Describe one result.

    Args:
        image: ``(S, S)`` network input.
        logits: ``(S, S)`` of the network.
        clean: ``(S, S)`` lungs after post-processing.
        measurements: of the delivered mask.
        pixels: of the radiograph.
    """
    box = content_box(image)
    found = layout(image, box)
    if not clean.any() or not measurements.lungs:
        return Finding(found, {}, {})
    traits = mask_traits(image, box, logits, clean)
    areas = [lung.area_pixels / (pixels * content_share(box, len(image))) for lung in measurements.lungs]
    numbers = {
        TINY_LUNG: min(areas),
        HUGE_LUNG: max(areas),
        TOUCHES_BORDER: traits.border_share,
        BEYOND_IMAGE: traits.beyond_share,
        RAGGED: traits.raggedness,
        FRAGMENTED: traits.cleaned_share,
        LOW_MARGIN: traits.doubt_share,
    }
    return Finding(found, {SHAPE: traits.shape, SIGNAL: traits.signal}, numbers)


def content_share(box: Box, side: int) -> float:
    """Share of an image that is content."""
    return (box.bottom - box.top) * (box.right - box.left) / side**2


def basic_flags(measurements: Measurements) -> tuple[str, ...]:
    """Flags of the number of lungs."""
    lungs = len(measurements.lungs)
    if lungs == 0:
        return (NO_LUNG,)
    return (ONE_LUNG,) if lungs == 1 else (JOINED_LUNGS,) if measurements.joined else ()


def limited_flags(finding: Finding, reference: Reference) -> tuple[str, ...]:
    """Flags of what is beyond its threshold; inverted polarity is not among them, see :func:`upright_polarity`."""
    numbers = {NOT_FRONTAL: reference.usual[LAYOUT].distance(finding.layout), **finding.numbers}
    for flag, name in ((UNUSUAL_SHAPE, SHAPE), (OUT_OF_DISTRIBUTION, SIGNAL)):
        if name in finding.vectors:
            numbers[flag] = reference.usual[name].distance(finding.vectors[name])
    return tuple(flag for flag in LIMITED if flag in numbers and is_beyond(flag, numbers[flag], reference.limits[flag]))


def is_beyond(flag: str, number: float, limit: float) -> bool:
    """Whether a number is beyond the threshold of its flag."""
    return number < limit if flag in BELOW else number > limit


def polarity_score(usual: Gaussian, found: Vector) -> float:
    """Log of how much farther a layout is from what is usual than its negative; the higher, the more inverted."""
    return math.log(max(usual.distance(found), 1e-9) / max(usual.distance(inverted_layout(found)), 1e-9))


def is_inverted(image: Image, reference: Reference) -> bool:
    """Whether a network input shows a chest radiograph with black and white exchanged.

    It does where the inverted image is a usual chest radiograph, and this one is by far not: the log of the ratio of
    both distances is above its threshold. What looks like a chest radiograph neither way stays as it is.
    """
    usual, found = reference.usual[LAYOUT], layout(image, content_box(image))
    unusual_inverted = usual.distance(inverted_layout(found)) > reference.limits[NOT_FRONTAL]
    return not unusual_inverted and polarity_score(usual, found) > reference.limits[INVERTED_POLARITY]


def inverted(radiograph: Radiograph) -> Radiograph:
    """The same radiograph with the other polarity."""
    return replace(radiograph, polarity="MONOCHROME1" if radiograph.polarity == "MONOCHROME2" else "MONOCHROME2")
