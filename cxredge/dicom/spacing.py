"""Pixel spacing of a projection radiograph, and the plane that it holds in.

A radiograph magnifies: at the detector a lung appears larger than it is in the patient. DICOM has several
spacings for that (PS3.3, 10.7); the first of these that is present is taken:

1. Pixel Spacing that was calibrated (Pixel Spacing Calibration Type GEOMETRY or FIDUCIAL): in the patient.
2. Pixel Spacing smaller than that of the detector or the film scanner, which means the same: in the patient.
   A larger one would mean that the radiograph made things smaller, and is passed over.
3. Imager Pixel Spacing divided by Estimated Radiographic Magnification Factor: in the patient.
4. Imager Pixel Spacing: at the detector.
5. Nominal Scanned Pixel Spacing, of a film scanner: at the detector, where the film was.
6. Pixel Spacing alone: in an unknown plane.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cxredge.radiograph import SpacingPlane

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

SMALLEST, LARGEST = 0.01, 10.0
"""Millimetres between which a spacing of a radiograph can lie; other values are mistakes."""
LARGEST_MAGNIFICATION = 5.0
"""Magnification factors are 1 or more; beyond this one they are mistakes."""
CALIBRATED = {"GEOMETRY", "FIDUCIAL"}
DIFFERENT = 1e-3
"""Relative difference from which two spacings are not the same."""

Pair = tuple[float, float]


@dataclass(frozen=True)
class Spacing:
    """(row, column) spacing in millimetres, ``None`` where it is unknown, and its plane."""

    millimetres: Pair | None = None
    plane: SpacingPlane = "unknown"


def pixel_spacing(dataset: Dataset) -> Spacing:
    """The spacing of a data set by the precedence above; values that are malformed count as absent."""
    pixel = spacing_pair(dataset, "PixelSpacing")
    imager = spacing_pair(dataset, "ImagerPixelSpacing")
    scanned = spacing_pair(dataset, "NominalScannedPixelSpacing")
    detector = imager or scanned
    if pixel and (is_calibrated(dataset) or (detector and is_smaller(pixel, detector))):
        return Spacing(pixel, "patient")
    factor = magnification(dataset)
    if imager and factor:
        return Spacing((imager[0] / factor, imager[1] / factor), "patient")
    return Spacing(detector, "detector") if detector else Spacing(pixel)


def spacing_pair(dataset: Dataset, keyword: str) -> Pair | None:
    """The two values of an attribute, or ``None`` where they are absent, malformed or out of range."""
    try:
        row, column = (float(value) for value in dataset.get(keyword) or ())
    except (TypeError, ValueError):
        return None
    return (row, column) if SMALLEST <= row <= LARGEST and SMALLEST <= column <= LARGEST else None


def is_calibrated(dataset: Dataset) -> bool:
    """Whether Pixel Spacing has been calibrated with the geometry of the exposure or an object of known size."""
    return text(dataset.get("PixelSpacingCalibrationType")) in CALIBRATED


def is_smaller(pixel: Pair, imager: Pair) -> bool:
    """Whether a spacing is smaller than that of the detector in both directions, as one in the patient is."""
    return all(inner < outer * (1 - DIFFERENT) for inner, outer in zip(pixel, imager, strict=True))


def magnification(dataset: Dataset) -> float | None:
    """Estimated Radiographic Magnification Factor, or ``None`` where it is absent or none."""
    try:
        factor = float(dataset.get("EstimatedRadiographicMagnificationFactor") or math.nan)
    except (TypeError, ValueError):
        return None
    return factor if 1 <= factor <= LARGEST_MAGNIFICATION else None


def text(value: Any) -> str:
    """A code string in upper case, empty where there is none."""
    return value.strip().upper() if isinstance(value, str) else ""
