"""The one compressed frame of a DICOM image, cut out of its items (PS3.5, A.4) and checked before it is decoded.

Its fragments are joined and the offset tables passed over: where there is one frame they say nothing, and wrong
ones would lead a decoder to bytes that nobody has looked at. What is checked here is what is decoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydicom.encaps import generate_fragments
from pydicom.uid import JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes, JPEGTransferSyntaxes

from cxredge.dicom.codestream import FrameHeader, has_end, starts_a_frame
from cxredge.dicom.layout import PixelLayout
from cxredge.errors import InputError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

HAVE_FRAME_HEADERS = frozenset(JPEGTransferSyntaxes + JPEGLSTransferSyntaxes + JPEG2000TransferSyntaxes)
OFFSET_SIZE, EXTENDED_OFFSET_SIZE = 4, 8
"""Bytes of an entry of the Basic and of the Extended Offset Table."""


def only_frame(dataset: Dataset, syntax: UID) -> bytes:
    """The compressed frame of a data set that holds one.

    Raises:
        InputError: the items are damaged, empty, or hold several frames.
    """
    try:
        table, *fragments = generate_fragments(dataset.PixelData)
    except ValueError as error:  # no item at all, or something else between them
        raise InputError(f"is damaged: its compressed image ({syntax.name}) is not in whole items") from error
    frames = frame_count(fragments, table, dataset.get("ExtendedOffsetTable"), syntax)
    if frames > 1:
        raise InputError(f"holds {frames} compressed frames, a radiograph has one; extract the frame that is meant")
    frame = b"".join(fragments)
    if not frame:
        raise InputError(f"is damaged: its compressed image ({syntax.name}) is empty")
    return frame


def frame_count(fragments: Sequence[bytes], table: bytes, extended: object, syntax: UID) -> int:
    """How many frames the fragments are: by their beginnings, or where nothing marks these, by the offset tables."""
    if syntax in HAVE_FRAME_HEADERS:
        return sum(map(starts_a_frame, fragments))
    entries = len(extended) // EXTENDED_OFFSET_SIZE if isinstance(extended, bytes) else 0
    return max(entries, len(table) // OFFSET_SIZE)


def require_frame(frame: bytes, header: FrameHeader | None, layout: PixelLayout, syntax: UID) -> None:
    """Hold a compressed frame against the header of its file.

    Args:
        frame: as :func:`only_frame` gives it.
        header: what the frame says of itself, ``None`` where nothing was found.
        layout: what the file says of it.
        syntax: the transfer syntax.

    Raises:
        InputError: no frame of this kind, of another size, or without an end.
    """
    if header is None:
        if syntax in HAVE_FRAME_HEADERS:
            raise InputError(f"is damaged: its compressed image ({syntax.name}) has no valid header")
        return
    if syntax in JPEGLSTransferSyntaxes and not has_end(frame):  # CharLS would search for half a minute
        raise InputError("is damaged: its compressed image is cut off, or its end is missing")
    if (header.height, header.width, header.samples) != (layout.rows, layout.columns, layout.samples):
        raise InputError(
            f"is damaged: header says {layout.columns}x{layout.rows} pixels of {layout.samples} samples, "
            f"the compressed image has {header.width}x{header.height} of {header.samples}"
        )
    if header.bits > layout.allocated:
        raise InputError(f"is damaged: header says {layout.allocated} bits, the compressed image has {header.bits}")
