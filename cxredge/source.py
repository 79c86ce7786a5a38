"""What may be segmented: files, data sets, arrays and radiographs, and how each becomes a radiograph."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cxredge.admission import decoded_pixels
from cxredge.radiograph import Radiograph, read_radiograph, require_finite

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

Source: TypeAlias = "str | os.PathLike[str] | Radiograph | NDArray[Any] | Dataset"


def source_pixels(source: Source) -> int:
    """Pixels that reading a source takes memory for: of a file by its header, of what is in memory already none."""
    return decoded_pixels(Path(source)) if isinstance(source, str | os.PathLike) else 0


def as_radiograph(source: Source) -> Radiograph:
    """The radiograph of any source that :class:`cxredge.segmenter.Segmenter` takes.

    Raises:
        InputError: it cannot be read.
        TypeError: not a kind of source.
    """
    if isinstance(source, Radiograph):
        return source
    if isinstance(source, np.ndarray):
        return Radiograph(require_finite(source))
    if isinstance(source, str | os.PathLike):
        return read_radiograph(source)
    from pydicom.dataset import Dataset

    if isinstance(source, Dataset):
        from cxredge.dicom.reading import radiograph_from_dataset

        return radiograph_from_dataset(source)
    raise TypeError(f"a radiograph is a path, an array, a Radiograph or a pydicom Dataset, not {type(source).__name__}")
