"""JPEG Extended of 12 bits (1.2.840.10008.1.2.4.51), which of pydicom's plug-ins only one under the GPL decodes.

GDCM does it, the same to the last bit as libjpeg-turbo, but pydicom does not ask it to. It prints a line about the
precision, which means nothing, on the process's standard error.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cxredge.errors import InputError

WORD, BITS = 16, 12
"""Bits of the words that GDCM gives, and of the values in them."""


def decode_deep_jpeg(frame: bytes, rows: int, columns: int) -> NDArray[np.uint16]:
    """Values ``(rows, columns)`` of a grey JPEG of 12 bits a sample, whose header has been checked.

    Raises:
        InputError: it is damaged.
    """
    import gdcm

    fragment, fragments = gdcm.Fragment(), gdcm.SequenceOfFragments.New()
    fragment.SetByteStringValue(frame)
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((columns, rows, 1))
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(gdcm.PhotometricInterpretation.MONOCHROME2))
    image.SetPixelFormat(gdcm.PixelFormat(1, WORD, BITS, BITS - 1, 0))
    image.SetTransferSyntax(gdcm.TransferSyntax(gdcm.TransferSyntax.JPEGExtendedProcess2_4))
    image.SetDataElement(element)
    buffer = image.GetBuffer()
    content = buffer.encode("utf-8", "surrogateescape") if isinstance(buffer, str) else b""
    if len(content) != rows * columns * WORD // 8:
        raise InputError("is damaged: its compressed image (JPEG Extended, 12 bits) cannot be decoded")
    return np.frombuffer(content, "<u2").reshape(rows, columns).astype(np.uint16)
