"""DICOM files opened with care: with or without a preamble, and never larger in memory than they ought to be."""

from __future__ import annotations

import os
import zlib
from io import BufferedReader, FileIO
from pathlib import Path
from typing import TYPE_CHECKING

from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from cxredge.dicom.prefix import HEAD_LENGTH, PREFIX, PREFIX_OFFSET, is_dicom, is_directory, lacks_preamble
from cxredge.errors import CxredgeError, InputError, one_line
from cxredge.limits import LARGEST_IMAGE_FILE, MEBIBYTE, LimitError, require_file_size

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

SYNTAXES = {
    (True, True): ImplicitVRLittleEndian,
    (False, True): ExplicitVRLittleEndian,
    (False, False): ExplicitVRBigEndian,
}
"""Transfer syntaxes by (implicit VR, little endian)."""
GROUP_LENGTH_SIZE = 12
"""Bytes of the first element of a File Meta Information, which says how long the rest is."""
ALWAYS_INFLATED = 64 * MEBIBYTE
LARGEST_INFLATION = 100
"""A deflated data set may grow to this many bytes, or times its size; zlib reaches a thousand."""


NO_MEMORY = "is too large for this machine's memory"


def open_data_set(path: Path, *, keywords: list[str] | None = None) -> Dataset:
    """Read the data set of an image file.

    Args:
        path: the file.
        keywords: attributes that are enough, without the pixels; ``None`` for all.

    Raises:
        InputError: not DICOM, a DICOMDIR, damaged, or beyond the limits of size.
    """
    try:
        require_file_size(path, LARGEST_IMAGE_FILE)
        with KnownLength(path) as file:
            head = file.read(HEAD_LENGTH)
            require_no_index(path, head)
            require_moderate_inflation(path, head)
            file.seek(0)
            header_only = keywords is not None
            dataset = dcmread(file, force=lacks_preamble(head), stop_before_pixels=header_only, specific_tags=keywords)
        name_transfer_syntax(dataset)
        return dataset
    except CxredgeError:
        raise
    except (LimitError, MemoryError) as error:
        raise InputError(str(error) or NO_MEMORY) from error
    except InvalidDicomError as error:
        raise InputError("is not a DICOM file (no DICM prefix)") from error
    except Exception as error:  # pydicom raises many types on damaged files
        raise InputError(f"is a damaged DICOM file: {one_line(error)}") from error


class KnownLength(BufferedReader):
    """A file that is never asked for more than it has: Python would allocate what a damaged length announces."""

    def __init__(self, path: Path) -> None:
        super().__init__(FileIO(path))
        self._length = os.fstat(self.fileno()).st_size

    def read(self, size: int | None = -1, /) -> bytes:
        """At most ``size`` bytes."""
        left = max(0, self._length - self.tell())
        return super().read(left if size is None or size < 0 else min(size, left))


def require_no_index(path: Path, head: bytes) -> None:
    """Raise :class:`InputError` where a file is a DICOMDIR, with what is wrong with it where something is."""
    if is_directory(head):
        from cxredge.dicom.directory import listed_images

        number = len(listed_images(path))
        raise InputError(f"is a DICOMDIR, an index of {number} images: give it, or its folder, to `cxredge segment`")


def require_moderate_inflation(path: Path, head: bytes) -> None:
    """Raise :class:`InputError` where a deflated data set would grow beyond all measure, before it does."""
    if not is_dicom(head):
        return
    meta = read_file_meta_info(path)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    most = max(ALWAYS_INFLATED, LARGEST_INFLATION * path.stat().st_size)
    inflater, inflated = zlib.decompressobj(-zlib.MAX_WBITS), 0
    with path.open("rb") as file:
        file.seek(PREFIX_OFFSET + len(PREFIX) + GROUP_LENGTH_SIZE + int(meta.FileMetaInformationGroupLength))
        while not inflater.eof and (chunk := inflater.unconsumed_tail or file.read(MEBIBYTE)):
            inflated += len(inflater.decompress(chunk, MEBIBYTE))
            if inflated > most:
                raise InputError(f"is a decompression bomb: deflated, it has more than {most // MEBIBYTE} MiB")


def name_transfer_syntax(dataset: Dataset) -> None:
    """Give a data set that names no transfer syntax the one that it was read in; compressed ones must name it."""
    if dataset.file_meta.get("TransferSyntaxUID") or "PixelData" not in dataset:
        return
    if not dataset["PixelData"].is_undefined_length:
        dataset.file_meta.TransferSyntaxUID = SYNTAXES[dataset.original_encoding]
