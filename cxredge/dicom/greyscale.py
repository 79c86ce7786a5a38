"""From stored values to what is shown: Modality LUT, VOI LUT and presentation (PS3.3, C.11).

**The rule for windows.** The network was trained on images as they are shown, normalised from their darkest to
their brightest pixel, and what matters to it is that a few pixels far outside (a marker, an implant, a border) do
not take up most of that range. So a VOI window, linear, linear-exact or sigmoid, sets the limits of the
normalisation, but cuts off at most 5 % of the pixels at either end; its shape is not applied. Then no window,
however narrow or misplaced, does harm, and one that is wider than the pixels' range changes nothing. A linear rescale
is undone by the normalisation. A VOI LUT that is a table is applied, since for an image that is linear in the
dose only the table makes it look like a radiograph, unless it moves more than 15 % of the pixels to its ends; one
that is passed over still tells which end is white. ``docs/dicom.md`` has the measurements.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cxredge.dicom.lookup_table import LookupTable, read_table
from cxredge.dicom.spacing import text
from cxredge.errors import InputError
from cxredge.radiograph import Polarity

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

LARGEST_CUT = 0.05
"""Share of the pixels that a window may cut off at either end."""
MOST_FLATTENED = 0.15
"""Share of the pixels that a table may move to the ends of the range, beyond those that were there before."""
END = 1 / 64
"""Share of the range that counts as its end."""
SAMPLED = 1 << 18
"""Pixels that a share is taken from."""
STEPS = 1024
"""Limits are kept to 1/1024 of a stored value, so that rounding in a rescale cannot tell two encodings apart."""

OPPOSITE: dict[Polarity, Polarity] = {"MONOCHROME1": "MONOCHROME2", "MONOCHROME2": "MONOCHROME1"}


@dataclass(frozen=True)
class Greyscale:
    """An image as it is shown.

    Attributes:
        pixels: ``(H, W)`` integers; a linear rescale is not applied.
        polarity: whether the largest of them is shown white.
        window: limits in the pixels' own values, or ``None``.
        conflict: whether Photometric Interpretation and Presentation LUT Shape contradict each other.
    """

    pixels: NDArray[Any]
    polarity: Polarity
    window: tuple[float, float] | None = None
    conflict: bool = False


@dataclass(frozen=True)
class Rescale:
    """``output = slope · stored + intercept``, the Modality LUT where it is no table."""

    slope: float = 1.0
    intercept: float = 0.0

    def stored(self, output: float) -> float:
        """The stored value of an output."""
        return round((output - self.intercept) / self.slope * STEPS) / STEPS


def greyscale(stored: NDArray[Any], photometric: Polarity, dataset: Dataset) -> Greyscale:
    """Apply what the data set says about grey values.

    Args:
        stored: ``(H, W)`` stored values.
        photometric: Photometric Interpretation.
        dataset: the header.

    Raises:
        InputError: the Modality LUT is damaged. A VOI LUT that is damaged is passed over.
    """
    polarity, conflict = shown_polarity(photometric, dataset)
    if dataset.get("ModalityLUTSequence"):
        table = read_table(dataset.ModalityLUTSequence[0], little_endian=is_little_endian(dataset))
        pixels: NDArray[Any] = table(stored)
        rescale = Rescale()
    else:
        pixels, rescale = stored, linear_rescale(dataset)
    voi = voi_table(dataset)
    if voi is not None and not flattens(voi, pixels, rescale):
        return Greyscale(mapped(voi, pixels, rescale), polarity, None, conflict)
    falling = voi is not None and int(voi.entries[-1]) < int(voi.entries[0])
    if (rescale.slope < 0) != falling:
        polarity = OPPOSITE[polarity]
    window = None if voi is not None else voi_window(dataset, rescale)
    return Greyscale(pixels, polarity, window, conflict)


def shown_polarity(photometric: Polarity, dataset: Dataset) -> tuple[Polarity, bool]:
    """Polarity after all tables, and whether the header contradicts itself.

    INVERSE goes with MONOCHROME1 and IDENTITY with MONOCHROME2 (PS3.3, C.8.11.3): together they invert once. Where they
    disagree, MONOCHROME1 inverts (detectors are known that write IDENTITY with it), and so does INVERSE.
    """
    shape = text(dataset.get("PresentationLUTShape"))
    conflict = shape == ("IDENTITY" if photometric == "MONOCHROME1" else "INVERSE")
    return "MONOCHROME1" if "INVERSE" in shape else photometric, conflict


def linear_rescale(dataset: Dataset) -> Rescale:
    """Rescale Slope and Intercept; a slope of 0 or none at all is 1.

    Raises:
        InputError: they are no numbers.
    """
    try:
        slope, intercept = float(dataset.get("RescaleSlope") or 1), float(dataset.get("RescaleIntercept") or 0)
    except (TypeError, ValueError) as error:
        raise InputError("is a damaged DICOM file: its rescale is not one number each") from error
    if not (math.isfinite(slope) and math.isfinite(intercept)):
        raise InputError("is a damaged DICOM file: its rescale is not finite")
    return Rescale(slope, intercept)


def voi_table(dataset: Dataset) -> LookupTable | None:
    """The first VOI LUT that is a table, or ``None`` where there is none that makes sense."""
    if not dataset.get("VOILUTSequence"):
        return None
    try:
        table = read_table(dataset.VOILUTSequence[0], little_endian=is_little_endian(dataset))
    except InputError:
        return None
    return table if table.entries.min() < table.entries.max() else None


def mapped(table: LookupTable, pixels: NDArray[Any], rescale: Rescale) -> NDArray[np.uint16]:
    """``pixels``, rescaled and through the table."""
    if rescale == Rescale():
        return table(pixels)
    return table(pixels * rescale.slope + rescale.intercept)


def flattens(table: LookupTable, pixels: NDArray[Any], rescale: Rescale) -> bool:
    """Whether a table moves many pixels to the ends of their range."""
    before = sample(pixels)
    return at_ends(mapped(table, before, rescale)) - at_ends(before) > MOST_FLATTENED


def at_ends(values: NDArray[Any]) -> float:
    """Share of ``values`` that lie at either end of their range; 1 where they are all equal."""
    low, high = float(values.min()), float(values.max())
    margin = END * (high - low)
    return float(((values <= low + margin) | (values >= high - margin)).mean())


def voi_window(dataset: Dataset, rescale: Rescale) -> tuple[float, float] | None:
    """Limits of the first window in stored values, or ``None`` where there is none that makes sense.

    Linear: PS3.3, C.11.2.1.2.1; linear-exact: C.11.2.1.3.2; sigmoid: C.11.2.1.3.1, between 2 and 98 % of its output.
    """
    try:
        centre, width = (first_number(dataset.get(keyword)) for keyword in ("WindowCenter", "WindowWidth"))
    except (IndexError, TypeError, ValueError):
        return None
    if not (math.isfinite(centre) and math.isfinite(width) and width > 0):
        return None
    function = text(dataset.get("VOILUTFunction"))
    if function == "SIGMOID":
        low, high = centre - width, centre + width
    elif function == "LINEAR_EXACT":
        low, high = centre - width / 2, centre + width / 2
    else:
        low, high = centre - 0.5 - (width - 1) / 2, centre - 0.5 + (width - 1) / 2
    limits = rescale.stored(low), rescale.stored(high)
    return min(limits), max(limits)


def first_number(value: Any) -> float:
    """The first of one or several numbers; ``None`` is a TypeError, as text that is no number is a ValueError."""
    return float(value) if isinstance(value, str | int | float) else float(value[0])


def value_range(grey: Greyscale, valid: NDArray[np.bool_] | None) -> tuple[float, float] | None:
    """(lowest, highest) value that counts, or ``None`` where all pixels do.

    Args:
        grey: the image.
        valid: ``(H, W)`` pixels that are neither padding nor border, ``None`` for all.
    """
    pixels = grey.pixels if valid is None else grey.pixels[valid]
    low, high = float(pixels.min()), float(pixels.max())
    if grey.window is not None and grey.window[0] < high and grey.window[1] > low:
        least, most = quantiles(pixels)
        low, high = max(low, min(grey.window[0], least)), min(high, max(grey.window[1], most))
    if valid is None and (low, high) == (float(pixels.min()), float(pixels.max())):
        return None
    return low, high


def quantiles(pixels: NDArray[Any]) -> tuple[float, float]:
    """Values below and above which the share lies that a window may cut off; of a sample, the same in any polarity."""
    ordered = np.sort(sample(pixels))
    beyond = int(LARGEST_CUT * len(ordered))
    return float(ordered[beyond]), float(ordered[len(ordered) - 1 - beyond])


def sample(pixels: NDArray[Any]) -> NDArray[Any]:
    """Evenly spaced pixels ``(N,)``, at most about :data:`SAMPLED`."""
    flat = pixels.reshape(-1)
    return flat[:: max(1, len(flat) // SAMPLED)]


def is_little_endian(dataset: Dataset) -> bool:
    """Byte order of the data set's words."""
    return bool(dataset.file_meta.TransferSyntaxUID.is_little_endian)
