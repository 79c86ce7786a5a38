"""From a radiograph to the network's input: the one home of preprocessing.

Training, export, calibration, evaluation and the device all call :func:`network_input`, so that a
model sees the same numbers everywhere (paper, section 4.1: min-max to [-1, 1], no aspect ratio kept).
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxredge.errors import InputError
from cxredge.libraries.open_cv import cv2
from cxredge.radiograph import Radiograph

SMALLEST_RANGE, LARGEST_RANGE = 1e-30, 1e30
"""Spans of pixel values between which single precision neither underflows nor overflows."""
LARGEST_WHOLE = 1 << 24
"""Up to this, single precision holds every whole number."""
MASK_THRESHOLD = 127.5
"""Masks on disk are 0 and 255: a pixel belongs to the mask above the middle."""


def network_input(radiograph: Radiograph, size: int) -> NDArray[np.float32]:
    """Normalise and resize a radiograph.

    The lowest value that is shown black becomes -1 and the highest that is shown white +1, taken at
    full resolution, over all pixels or, where the radiograph has one, its ``value_range``; what lies beyond is
    clipped. The offset from the minimum is exact, and a whole factor that all pixels were multiplied with is taken
    out, so one image stored in different encodings, depths or polarities gives identical numbers. The pixels are
    copied once, to single precision.

    Args:
        radiograph: the radiograph.
        size: side of the network's input in pixels.

    Returns:
        ``(size, size)`` float32 in [-1, 1].

    Raises:
        InputError: all pixels are equal.
    """
    low, high = value_limits(radiograph)
    if low == high:
        raise InputError("all pixels are equal, there is nothing to see")
    value_range = float(high) - float(low)
    if not SMALLEST_RANGE < value_range < LARGEST_RANGE:
        raise InputError(f"its values span {value_range:.3g}, which is no image's range")
    offset = offset_from_black(radiograph, low, high)
    step = common_step(offset, value_range)
    if step > 1:
        offset /= np.float32(step)
    with np.errstate(under="ignore"):
        return resize(offset, size) * np.float32(2 / (value_range / step)) - np.float32(1)


def value_limits(radiograph: Radiograph) -> tuple[Any, Any]:
    """Lowest and highest value that counts: of the radiograph's ``value_range``, or of all its pixels."""
    pixels = radiograph.pixels
    return (pixels.min(), pixels.max()) if radiograph.value_range is None else radiograph.value_range


def offset_from_black(radiograph: Radiograph, low: Any, high: Any) -> NDArray[np.float32]:
    """Distance ``(H, W)`` of each pixel from the value that is shown black, clipped to the limits."""
    pixels = radiograph.pixels
    small = pixels.dtype.kind in "ui" and pixels.dtype.itemsize <= 2 and fits(low, pixels) and fits(high, pixels)
    exact = np.float32 if small else np.float64  # in which no difference is rounded before it is single precision
    low, high = exact(low), exact(high)
    offset = np.empty(pixels.shape, np.float32)  # the one array of the radiograph's size that is made
    first, second = (pixels, low) if radiograph.polarity == "MONOCHROME2" else (high, pixels)
    with np.errstate(over="ignore", under="ignore"):  # a host application may have made errors of them
        np.subtract(first, second, out=offset, dtype=exact)
    if radiograph.value_range is not None:
        np.clip(offset, 0, np.float32(high - low), out=offset)
    return offset


def common_step(offset: NDArray[np.float32], value_range: float) -> int:
    """The largest whole number that divides every distance ``(H, W)``, and so the range; 1 where they are not whole.

    It is 257 where 8 bits were stored as 16, and 16 where 12 were moved to the top of their words. Most images
    have a row or two in which it is found to be 1.
    """
    if not value_range.is_integer() or value_range > LARGEST_WHOLE:
        return 1
    step = int(value_range)
    for row in offset:
        whole = row.astype(np.int32)
        if (whole != row).any():
            return 1
        step = int(np.gcd.reduce(whole, initial=step))
        if step == 1:
            break
    return step


def fits(limit: Any, pixels: NDArray[Any]) -> bool:
    """Whether ``limit`` is a value that the integer type of ``pixels`` can hold."""
    bounds = np.iinfo(pixels.dtype)
    return bool(bounds.min <= limit <= bounds.max and int(limit) == limit)


def resize(image: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Resize ``(H, W)`` to ``(size, size)``: each axis by area averaging when it shrinks, else bilinearly."""
    height, width = image.shape
    shrunk = cv2.resize(image, (min(width, size), min(height, size)), interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(shrunk, (size, size), interpolation=cv2.INTER_LINEAR), np.float32)


def network_mask(mask: NDArray[Any], size: int) -> NDArray[np.bool_]:
    """Resize a stored 0/255 mask ``(H, W)`` to ``(size, size)`` and threshold it at the middle."""
    return resize(mask.astype(np.float32), size) > MASK_THRESHOLD


def grey_levels(radiograph: Radiograph, size: tuple[int, int], levels: int) -> NDArray[np.uint8]:
    """The radiograph as a person sees it: ``(height, width)`` grey from 0 (black) to ``levels`` (white).

    Args:
        radiograph: normalised like the network's input.
        size: (width, height) of the picture, not larger than the radiograph.
        levels: largest grey value, at most 255.
    """
    low, high = value_limits(radiograph)
    offset = cv2.resize(offset_from_black(radiograph, low, high), size, interpolation=cv2.INTER_AREA)
    value_range = float(high) - float(low) or 1.0
    return np.asarray(np.rint(offset * (levels / value_range)), np.uint8)
