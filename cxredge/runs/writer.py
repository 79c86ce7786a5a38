"""Writing the results of one radiograph, in every format that is wanted.

Each format has a module that makes its bytes; this one names the files, writes them and says what could not be
made and why. What a DICOM object needs of its source is read from the source's header when it is written.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cxredge.algorithm import Algorithm
from cxredge.contours import contour_json
from cxredge.dicom.prefix import HEAD_LENGTH, is_dicom, lacks_preamble
from cxredge.errors import InputError
from cxredge.runs.formats import OF_DICOM, Format, SegmentationType
from cxredge.runs.names import require_inside
from cxredge.runs.results import (
    CONTOUR_SUFFIX,
    NPY_SUFFIX,
    SC_SUFFIX,
    SEG_SUFFIX,
    Target,
    Written,
    write_atomically,
    write_pictures,
)
from cxredge.segmenter import Segmentation

if TYPE_CHECKING:
    from cxredge.dicom.source import SourceHeader

NO_SOURCE = "needs a DICOM input, to refer to and to be filed beside"


@dataclass(frozen=True)
class ResultWriter:
    """Writes the results of one radiograph in every format that is wanted; safe to call from several threads.

    Attributes:
        formats: that are written.
        algorithm: the model, as the files name it.
        overlay: whether ``png`` includes the picture with the contours.
        segmentation_type: of ``dicom-seg``.
    """

    formats: tuple[Format, ...]
    algorithm: Algorithm
    overlay: bool = True
    segmentation_type: SegmentationType = "binary"

    def __call__(self, folder: Path, target: Target, segmentation: Segmentation) -> Written:
        """Write the files of one radiograph, each whole or not at all.

        Args:
            folder: the output folder.
            target: the input and the names of its results.
            segmentation: the result.

        Raises:
            InputError: only formats are wanted that the input cannot have.
            OutputError: a file cannot be written.
        """
        names: list[str] = []
        refused: dict[str, str] = {}
        source = self.source(target, segmentation)
        if isinstance(source, InputError) and OF_DICOM.issuperset(self.formats):
            raise source
        for name in self.formats:
            if name == "png":
                names += write_pictures(folder, target, segmentation, overlay=self.overlay)
                continue
            try:
                for suffix, content in self.files(name, segmentation, source):
                    place = target.named(suffix)
                    write_atomically(require_inside(folder, place), content)
                    names.append(place.as_posix())
            except InputError as error:
                refused[name] = error.reason
        return Written(tuple(names), refused)

    def source(self, target: Target, segmentation: Segmentation) -> SourceHeader | InputError | None:
        """The source's header, or why there is none; ``None`` where no format needs it."""
        if OF_DICOM.isdisjoint(self.formats):
            return None
        try:
            return dicom_header(target.source, segmentation)
        except InputError as error:
            return error

    def files(
        self, name: Format, segmentation: Segmentation, source: SourceHeader | InputError | None
    ) -> Iterator[tuple[str, bytes]]:
        """Suffix and content of each file of a format other than ``png``.

        Raises:
            InputError: the format cannot be made of this radiograph.
        """
        if name == "npy":
            yield NPY_SUFFIX, mask_npy(segmentation)
        elif name == "contour-json":
            model = {"name": self.algorithm.name, "sha256": self.algorithm.sha256}
            yield CONTOUR_SUFFIX, contour_json(segmentation, model)
        elif isinstance(source, InputError):
            raise source
        elif source is not None:
            yield self.dicom_file(name, segmentation, source)

    def dicom_file(self, name: Format, segmentation: Segmentation, source: SourceHeader) -> tuple[str, bytes]:
        """Suffix and content of a DICOM object."""
        if name == "dicom-seg":
            from cxredge.dicom.segmentation import segmentation_file

            return SEG_SUFFIX, segmentation_file(segmentation, source, self.algorithm, self.segmentation_type)
        from cxredge.dicom.secondary_capture import secondary_capture_file

        return SC_SUFFIX, secondary_capture_file(segmentation, source, self.algorithm)


def dicom_header(path: Path, segmentation: Segmentation) -> SourceHeader:
    """The header of a DICOM source.

    Raises:
        InputError: the source is not DICOM, or has changed since it was read.
    """
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_LENGTH)
    except OSError as error:
        raise InputError(f"cannot be read again: {error.strerror or error}", path) from error
    if not (is_dicom(head) or lacks_preamble(head)):
        raise InputError(NO_SOURCE, path)
    from cxredge.libraries.open_gdcm import import_quietly

    import_quietly()
    from cxredge.dicom.source import read_source_header

    return read_source_header(path, segmentation.radiograph)


def mask_npy(segmentation: Segmentation) -> bytes:
    """The mask as NPY, ``(H, W)`` bool."""
    buffer = io.BytesIO()
    np.save(buffer, segmentation.mask, allow_pickle=False)
    return buffer.getvalue()
