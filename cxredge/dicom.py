"""DICOM files and pydicom data sets as :class:`~cxredge.radiograph.Radiograph`.

Reads single-frame CR, DX and secondary capture images. Decoding is pydicom's, with the plug-ins
that come with cxredge. Nothing that identifies a patient is kept but the SOP Instance UID.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.pixels import apply_modality_lut
from pydicom.pixels.utils import pixel_array

from cxredge.errors import CxredgeError, InputError
from cxredge.radiograph import Polarity, Radiograph, require_finite
from cxredge.raster import grey_from_rgb

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

SPACING_ATTRIBUTES = ("ImagerPixelSpacing", "PixelSpacing", "NominalScannedPixelSpacing")
"""Attributes that give the spacing, in order of precedence for projection radiographs."""


def read_dicom(path: Path) -> Radiograph:
    """Read a DICOM file.

    Raises:
        InputError: not DICOM, no image in it, more than one frame, or a transfer syntax without a decoder.
    """
    try:
        dataset = dcmread(path)
    except InvalidDicomError as error:
        raise InputError("is not a DICOM file (no DICM prefix)") from error
    except Exception as error:  # pydicom raises many types on damaged files
        raise InputError(f"is a damaged DICOM file: {one_line(error)}") from error
    return radiograph_from_dataset(dataset)


def radiograph_from_dataset(dataset: Dataset) -> Radiograph:
    """The radiograph that a pydicom data set holds.

    A linear rescale is not applied, since min-max normalisation undoes it; a negative slope turns
    the polarity. A modality LUT table is applied.

    Raises:
        InputError: no image in it, more than one frame, or pixels that cannot be decoded.
    """
    try:
        return _radiograph(dataset)
    except CxredgeError:
        raise
    except Exception as error:  # values of the wrong kind or number fail in many ways
        raise InputError(f"is a damaged DICOM file: {one_line(error)}") from error


def _radiograph(dataset: Dataset) -> Radiograph:
    if "PixelData" not in dataset:
        raise InputError("holds no image (no Pixel Data), or is cut off before it")
    frames = int(dataset.get("NumberOfFrames") or 1)
    if frames != 1:
        raise InputError(f"holds {frames} frames, a radiograph has one")
    interpretation = dataset.PhotometricInterpretation
    pixels = decode_pixels(dataset)
    if pixels.ndim == 3:
        pixels = grey_from_rgb(eight_bit_rgb(pixels))
    elif interpretation not in ("MONOCHROME1", "MONOCHROME2"):
        raise InputError(f"has photometric interpretation {interpretation}, a radiograph is MONOCHROME1 or 2")
    polarity: Polarity = "MONOCHROME1" if interpretation == "MONOCHROME1" else "MONOCHROME2"
    if dataset.get("ModalityLUTSequence"):
        pixels = apply_modality_lut(pixels, dataset)
    elif float(dataset.get("RescaleSlope") or 1) < 0:
        polarity = "MONOCHROME2" if polarity == "MONOCHROME1" else "MONOCHROME1"
    return Radiograph(require_finite(pixels), polarity, pixel_spacing(dataset), dataset.get("SOPInstanceUID"))


def decode_pixels(dataset: Dataset) -> NDArray[Any]:
    """Stored pixel values ``(H, W)`` or ``(H, W, 3)`` of a single-frame data set."""
    try:
        return np.asarray(pixel_array(dataset))
    except Exception as error:  # decoders raise many types
        syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
        name = getattr(syntax, "name", "unknown transfer syntax")
        raise InputError(f"pixels cannot be decoded ({name}): {one_line(error)}") from error


def one_line(error: Exception) -> str:
    """The message of a library's error on one line."""
    return " ".join(str(error).split())


def eight_bit_rgb(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Colour pixels as they are, where they have three 8-bit samples."""
    if pixels.shape[2] != 3 or pixels.dtype != np.uint8:
        raise InputError(f"has {pixels.shape[2]} samples of {pixels.dtype} a pixel, a radiograph is grey")
    return pixels


def pixel_spacing(dataset: Dataset) -> tuple[float, float] | None:
    """(row, column) spacing in millimetres, or ``None`` where it is absent, malformed or not positive."""
    for attribute in SPACING_ATTRIBUTES:
        try:
            row, column = (float(value) for value in dataset.get(attribute) or ())
        except (TypeError, ValueError):
            continue
        if row > 0 and column > 0 and math.isfinite(row) and math.isfinite(column):
            return row, column
    return None
