"""Which pixels of a DICOM image are X-ray image: not padding, not behind a shutter, not a collimator's shadow.

Padding has a value of its own (PS3.3, C.7.5.1.1.2); a shutter (C.7.6.11) is what the sender wants covered; the
collimator's edges (C.8.7.3) say where the X-rays ended. None of them may shape the normalisation: with a white
border on a tenth of each side, Dice on JSRT falls from .97 to .55 where the radiograph takes up an eighth of the
range. Headers are wrong often enough that each is believed only where enough of the image is left, and the
collimator's only where the pixels agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cxredge.dicom.spacing import text
from cxredge.libraries.open_cv import cv2

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

LEAST_LEFT = 0.25
"""Share of the image that must be left for padding or a border to be believed."""
FLATTER = 0.5
"""Spread of the values beyond the collimator's edges, as a share of that within, up to which they are a shadow."""
GAP = 0.1
"""Distance of a constant border's value from the other values, as a share of their span, from which it is no image."""
SPREAD_SAMPLE = 1 << 16
"""Pixels that a spread is taken from."""

Region = NDArray[np.bool_]
"""``(H, W)``, True where pixels are image."""


@dataclass(frozen=True)
class Blades:
    """Names of the attributes of a shutter or a collimator; both modules are built alike."""

    shape: str
    left: str
    right: str
    upper: str
    lower: str
    centre: str
    radius: str
    vertices: str


SHUTTER = Blades(
    "ShutterShape",
    "ShutterLeftVerticalEdge",
    "ShutterRightVerticalEdge",
    "ShutterUpperHorizontalEdge",
    "ShutterLowerHorizontalEdge",
    "CenterOfCircularShutter",
    "RadiusOfCircularShutter",
    "VerticesOfThePolygonalShutter",
)
COLLIMATOR = Blades(
    "CollimatorShape",
    "CollimatorLeftVerticalEdge",
    "CollimatorRightVerticalEdge",
    "CollimatorUpperHorizontalEdge",
    "CollimatorLowerHorizontalEdge",
    "CenterOfCircularCollimator",
    "RadiusOfCircularCollimator",
    "VerticesOfThePolygonalCollimator",
)


@dataclass(frozen=True)
class Coverage:
    """What of an image counts.

    Attributes:
        valid: ``(H, W)`` pixels that are image; ``None``: all.
        beyond: ``(H, W)`` pixels behind the shutter, the collimator or in a border; ``None``: none. Padding, which may
            have a value that other pixels have too, is not among them.
    """

    valid: Region | None = None
    beyond: Region | None = None


def coverage(stored: NDArray[Any], dataset: Dataset) -> Coverage:
    """Padding, shutter, collimator and constant borders of an image.

    Args:
        stored: ``(H, W)`` stored values, before any lookup table.
        dataset: the header.
    """
    inside: Region | None = None
    shutter = opening(stored.shape, dataset, SHUTTER)
    if shutter is not None:
        inside = narrowed(inside, inner(shutter))
    beam = opening(stored.shape, dataset, COLLIMATOR)
    if beam is not None and is_shadow(stored, beam):
        inside = narrowed(inside, inner(beam))
    framed = within_border(stored)
    if framed is not None:
        inside = narrowed(inside, framed)
    padded = padding(stored, dataset)
    valid = inside if padded is None else narrowed(inside, ~padded)
    return Coverage(valid, None if inside is None else ~inside)


def narrowed(valid: Region | None, region: Region) -> Region | None:
    """``valid`` within ``region``, or unchanged where too little of the image would be left."""
    both = region if valid is None else valid & region
    return valid if both.mean() < LEAST_LEFT or both.all() else both


def padding(stored: NDArray[Any], dataset: Dataset) -> Region | None:
    """Pixels of Pixel Padding Value, or up to Pixel Padding Range Limit; ``None`` where there are none."""
    limits = [dataset.get(keyword) for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")]
    try:
        values = [as_stored(limit, stored, dataset) for limit in limits if limit is not None]
    except (TypeError, ValueError):
        return None
    if limits[0] is None:
        return None
    padded = (stored >= min(values)) & (stored <= max(values))
    return padded if padded.any() else None


def as_stored(value: Any, stored: NDArray[Any], dataset: Dataset) -> int:
    """A number of the header as the bits of a stored pixel hold it, whatever the sign it was written with."""
    bits = int(dataset.BitsStored)
    wrapped = int(value) & ((1 << bits) - 1)
    return wrapped - (1 << bits) if stored.dtype.kind == "i" and wrapped >> (bits - 1) else wrapped


def opening(shape: tuple[int, ...], dataset: Dataset, blades: Blades) -> Region | None:
    """The pixels that a shutter or a collimator leaves open; ``None`` where there is none, or none that makes sense."""
    shapes = dataset.get(blades.shape) or ()
    names = {text(name) for name in ([shapes] if isinstance(shapes, str) else shapes)}
    region = np.ones(shape, np.uint8)
    try:
        if "RECTANGULAR" in names:
            region &= rectangle(shape, dataset, blades)
        if "CIRCULAR" in names:
            region &= circle(shape, dataset, blades)
        if "POLYGONAL" in names:
            region &= polygon(shape, dataset, blades)
    except (TypeError, ValueError, OverflowError, cv2.error):  # malformed, or without an end
        return None
    return None if region.all() else region.view(np.bool_)


def rectangle(shape: tuple[int, ...], dataset: Dataset, blades: Blades) -> NDArray[np.uint8]:
    """Pixels between four edges, which are columns and rows counted from 1 and may lie outside the image."""
    left, right, upper, lower = (
        int(dataset.get(name)) for name in (blades.left, blades.right, blades.upper, blades.lower)
    )
    region = np.zeros(shape, np.uint8)
    region[max(0, upper - 1) : max(0, lower), max(0, left - 1) : max(0, right)] = 1
    return region


def circle(shape: tuple[int, ...], dataset: Dataset, blades: Blades) -> NDArray[np.uint8]:
    """Pixels within a radius of a centre, given as row and column."""
    row, column = (int(value) - 1 for value in dataset.get(blades.centre))
    radius = int(dataset.get(blades.radius))
    down, along = np.arange(shape[0], dtype=np.float64)[:, None] - row, np.arange(shape[1], dtype=np.float64) - column
    return (down**2 + along**2 <= radius**2).view(np.uint8)


def polygon(shape: tuple[int, ...], dataset: Dataset, blades: Blades) -> NDArray[np.uint8]:
    """Pixels within a polygon, whose vertices are given as row and column by turns.

    Raises:
        ValueError: a vertex lies far beyond the image, where drawing would take long.
    """
    vertices = np.array([int(value) for value in dataset.get(blades.vertices)], np.int64).reshape(-1, 2) - 1
    if (np.abs(vertices) > 2 * np.array(shape)).any():
        raise ValueError("vertices lie beyond the image")
    region = np.zeros(shape, np.uint8)
    return np.asarray(cv2.fillPoly(region, [np.ascontiguousarray(vertices[:, ::-1], np.int32)], 1))


def inner(region: Region) -> Region:
    """``region`` without its outermost pixels, which an edge may share with the border; the image's own stay."""
    return np.asarray(cv2.erode(region.view(np.uint8), np.ones((3, 3), np.uint8)).view(np.bool_))


def is_shadow(stored: NDArray[Any], beam: Region) -> bool:
    """Whether values beyond the collimator's edges are so much flatter than within that no X-rays got there."""
    if beam.mean() < LEAST_LEFT:
        return False
    within, beyond = spread(stored[beam]), spread(stored[~beam])
    return beyond <= FLATTER * within


def spread(values: NDArray[Any]) -> float:
    """Distance from the 10th to the 90th percentile of some of ``values`` ``(N,)``."""
    low, high = np.percentile(values[:: max(1, len(values) // SPREAD_SAMPLE)], [10, 90])
    return float(high - low)


def within_border(stored: NDArray[Any]) -> Region | None:
    """The pixels within borders of one value each that lies apart from all others; ``None`` where there are none."""
    top, bottom, left, right = constant_borders(stored)
    height, width = stored.shape
    middle = stored[top : height - bottom, left : width - right]
    if middle.size == stored.size or middle.size < LEAST_LEFT * stored.size:
        return None
    low, high = int(middle.min()), int(middle.max())
    gap = GAP * (high - low)
    corners = (stored[0, 0], stored[-1, -1], stored[0, -1], stored[-1, 0])
    if all(low - gap <= int(value) <= high + gap for value in corners):
        return None
    region = np.zeros(stored.shape, np.bool_)
    region[top : height - bottom, left : width - right] = True
    return region


def constant_borders(stored: NDArray[Any]) -> tuple[int, int, int, int]:
    """Rows at the top and bottom and columns at the left and right that are each of one value."""
    top, bottom = constant_rows(stored), constant_rows(stored[::-1])
    if top == len(stored):
        return 0, 0, 0, 0
    middle = stored[top : len(stored) - bottom].T
    return top, bottom, constant_rows(middle), constant_rows(middle[::-1])


def constant_rows(stored: NDArray[Any]) -> int:
    """Number of rows from the first one on that hold nothing but the first one's first value."""
    value = stored[0, 0]
    for number, row in enumerate(stored):
        if row[0] != value or not (row == value).all():
            return number
    return len(stored)
