"""DICOM files and pydicom data sets as :class:`~cxredge.radiograph.Radiograph`.

Reads single-frame CR, DX and secondary capture images in every transfer syntax that pydicom and its plug-ins decode.
Nothing that identifies a patient is kept but the SOP Instance UID. The steps have a module each:
:mod:`~.pixels` decodes, :mod:`~.collimation` finds what is image, :mod:`~.greyscale` applies tables and windows,
:mod:`~.spacing` and :mod:`~.view` read the header.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cxredge.dicom.collimation import Coverage, coverage
from cxredge.dicom.file import NO_MEMORY, open_data_set
from cxredge.dicom.greyscale import Greyscale, greyscale, value_range
from cxredge.dicom.pixels import stored_pixels
from cxredge.dicom.spacing import pixel_spacing
from cxredge.dicom.view import patient_orientation, view_notes
from cxredge.errors import CxredgeError, InputError, one_line
from cxredge.limits import LimitError
from cxredge.radiograph import POLARITY_CONFLICT, Radiograph

if TYPE_CHECKING:
    from pydicom.dataset import Dataset


def read_dicom(path: Path) -> Radiograph:
    """Read a DICOM file, with or without a preamble.

    Raises:
        InputError: not DICOM, no image in it, more than one frame, or a transfer syntax without a decoder.
    """
    return radiograph_from_dataset(open_data_set(path))


def radiograph_from_dataset(dataset: Dataset) -> Radiograph:
    """The radiograph that a pydicom data set holds.

    A linear rescale is not applied, since min-max normalisation undoes it; a negative slope turns
    the polarity. Tables are applied, windows limit the normalisation: see :mod:`cxredge.dicom.greyscale`.

    Raises:
        InputError: no image in it, more than one frame, or pixels that cannot be decoded.
    """
    try:
        return _radiograph(dataset)
    except CxredgeError:
        raise
    except (LimitError, MemoryError) as error:
        raise InputError(str(error) or NO_MEMORY) from error
    except Exception as error:  # values of the wrong kind or number fail in many ways
        raise InputError(f"is a damaged DICOM file: {one_line(error)}") from error


def _radiograph(dataset: Dataset) -> Radiograph:
    stored, photometric = stored_pixels(dataset)
    covered = coverage(stored, dataset)
    grey = greyscale(stored, photometric, dataset)
    limits = value_range(grey, covered.valid)
    spacing = pixel_spacing(dataset)
    return Radiograph(
        covered_pixels(grey, covered, limits),
        grey.polarity,
        spacing.millimetres,
        str(dataset.get("SOPInstanceUID") or "") or None,
        limits,
        spacing.plane,
        patient_orientation(dataset),
        view_notes(dataset) + ((POLARITY_CONFLICT,) if grey.conflict else ()),
    )


def covered_pixels(grey: Greyscale, covered: Coverage, limits: tuple[float, float] | None) -> NDArray[Any]:
    """The pixels with what lies beyond the shutter, the collimator or a border painted black.

    So a viewer shows a shutter (PS3.3, C.7.6.11), and so the network expects the surroundings: with a white border on
    a tenth of each side Dice is .829 on NLM, with a black one .918.
    """
    if covered.beyond is None or limits is None:
        return grey.pixels
    black = math.floor(limits[0]) if grey.polarity == "MONOCHROME2" else math.ceil(limits[1])
    return np.where(covered.beyond, grey.pixels.dtype.type(black), grey.pixels)
