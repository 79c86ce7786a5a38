"""A radiograph as it came from the machine: pixels, polarity, spacing and identity.

:func:`read_radiograph` finds the reader by the file's content, never by its name. The readers are
:mod:`cxredge.raster` (PNG, JPEG, TIFF, NPY) and :mod:`cxredge.dicom.reading`; what they give goes to
:mod:`cxredge.preprocessing`.
"""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cxredge.dicom.prefix import HEAD_LENGTH, is_dicom, lacks_preamble
from cxredge.errors import InputError
from cxredge.limits import LARGEST_IMAGE_FILE, LimitError, require_file_size

Polarity: TypeAlias = Literal["MONOCHROME1", "MONOCHROME2"]
"""DICOM's terms: MONOCHROME2 shows the largest value white, MONOCHROME1 shows it black."""

RADIOGRAPH_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".tif", ".tiff", ".npy", ".dcm", ".dicom"})
"""Names that a folder scan takes as radiographs (besides files that start as DICOM does)."""

MINIMUM_SIDE = 32
"""Smallest height and width in pixels that is segmented."""

SpacingPlane: TypeAlias = Literal["detector", "patient", "unknown"]
"""Where a spacing holds: at the detector, where the patient appears magnified, or in the patient."""

OTHER_MODALITY, NOT_CHEST, LATERAL, OBLIQUE, ROTATED, POLARITY_CONFLICT = NOTES = (
    "other_modality",
    "not_chest",
    "lateral",
    "oblique",
    "rotated",
    "polarity_conflict",
)
"""What a header may say that is a reason to look at the result, see :class:`Radiograph`."""

DICOM_SUFFIXES = frozenset({".dcm", ".dicom"})
RASTER_MAGICS = (b"\x89PNG", b"\xff\xd8", b"II*\0", b"MM\0*")
"""First bytes of PNG, JPEG and TIFF files."""
NPY_MAGIC = b"\x93NUMPY"


@dataclass(frozen=True)
class Radiograph:
    """One radiograph.

    Attributes:
        pixels: ``(H, W)`` integer or floating values, after a modality LUT, before any windowing.
            A linear rescale is not applied: min-max normalisation undoes it.
        polarity: whether the largest value is shown white (MONOCHROME2) or black (MONOCHROME1).
        spacing: (row, column) spacing in millimetres, or ``None``.
        identity: SOP Instance UID, or ``None`` where the file has none.
        value_range: (lowest, highest) of the values that count, where padding, a collimated border or what
            a window cuts off must not shape the normalisation; values beyond are clipped. ``None``: all count.
        spacing_plane: where ``spacing`` holds.
        orientation: the patient's directions of a row and of a column, as in DICOM's Patient Orientation
            (PS3.3, C.7.6.1.1.1): ``("L", "F")`` for a frontal view as it is usually shown; ``None``: unknown.
        notes: what the header says that is a reason to look at the result, of :data:`NOTES`: not radiography, not
            of the chest, not frontal, not upright, or contradictory about which values are white.
    """

    pixels: NDArray[Any]
    polarity: Polarity = "MONOCHROME2"
    spacing: tuple[float, float] | None = None
    identity: str | None = None
    value_range: tuple[float, float] | None = None
    spacing_plane: SpacingPlane = "unknown"
    orientation: tuple[str, str] | None = None
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        pixels = self.pixels
        if pixels.ndim != 2:
            raise InputError(f"a radiograph has two dimensions, not shape {pixels.shape}")
        if pixels.dtype.kind not in "uif":
            raise InputError(f"pixels must be integers or floating numbers, not {pixels.dtype}")
        if min(pixels.shape) < MINIMUM_SIDE:
            height, width = pixels.shape
            raise InputError(f"image of {width}x{height} pixels is too small, {MINIMUM_SIDE}x{MINIMUM_SIDE} is needed")
        if self.value_range is not None and not all(math.isfinite(limit) for limit in self.value_range):
            raise InputError(f"value range {self.value_range} is not finite")

    @property
    def shape(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        height, width = self.pixels.shape
        return int(height), int(width)

    @property
    def flipped(self) -> bool | None:
        """Whether the patient's left is at the image's left, against the custom; ``None`` where it is unknown."""
        row = "" if self.orientation is None else self.orientation[0]
        return {"R": True, "L": False}.get(row[:1])

    @property
    def pixel_area_mm2(self) -> float | None:
        """Area of one pixel in square millimetres, where the spacing is known."""
        return None if self.spacing is None else self.spacing[0] * self.spacing[1]


def read_radiograph(path: str | os.PathLike[str]) -> Radiograph:
    """Read one radiograph from a PNG, JPEG, TIFF, NPY or DICOM file.

    Args:
        path: the file. Its kind is told from its content.

    Returns:
        The radiograph, pixels at full resolution and bit depth.

    Raises:
        InputError: the file cannot be read, is damaged, or is not a grey-scale radiograph.
    """
    try:
        return _read(Path(path))
    except InputError as error:
        raise InputError(error.reason, path) from error


def _read(path: Path) -> Radiograph:
    if os.path.exists(path) and not os.path.isfile(path):  # noqa: PTH110, PTH113 (never raise)
        raise InputError("cannot be read: is not a file")
    try:
        require_file_size(path, LARGEST_IMAGE_FILE)
        with path.open("rb") as file:
            head = file.read(HEAD_LENGTH)
    except LimitError as error:
        raise InputError(str(error)) from error
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror or error}") from error
    if not head:
        raise InputError("the file is empty")
    if is_dicom(head) or lacks_preamble(head):
        from cxredge.libraries.open_gdcm import import_quietly

        import_quietly()
        from cxredge.dicom.reading import read_dicom

        return read_dicom(path)
    from cxredge.raster import read_npy, read_raster

    if head.startswith(NPY_MAGIC):
        return read_npy(path)
    if path.suffix.lower() in DICOM_SUFFIXES and not head.startswith(RASTER_MAGICS):
        raise InputError("is not a DICOM file (no DICM prefix)")
    return read_raster(path)


def require_finite(pixels: NDArray[Any]) -> NDArray[Any]:
    """Return ``pixels``; raise :class:`InputError` where any is NaN or infinite."""
    if pixels.dtype.kind == "f" and pixels.size and not (np.isfinite(pixels.min()) and np.isfinite(pixels.max())):
        raise InputError("pixels include NaN or infinite values")
    return pixels
