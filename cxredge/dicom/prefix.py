"""What the first bytes of a file say: DICOM, DICOM without its preamble, or the index of a DICOM medium.

Nothing is parsed here but what the bytes hold, so that a folder of any size is sorted without pydicom.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

PREFIX_OFFSET = 128
PREFIX = b"DICM"
HEAD_LENGTH = 1024
"""Bytes of a file that are enough to tell what it is."""

DIRECTORY_CLASS = b"1.2.840.10008.1.3.10"
"""Media Storage Directory Storage, the SOP Class of a DICOMDIR (PS3.4, I.4)."""
DIRECTORY_ELEMENT = b"\2\0\2\0UI"
"""Media Storage SOP Class UID in a File Meta Information, which is always explicit little endian (PS3.10, 7.1)."""

SHORT_LENGTHS = frozenset(
    b"AE AS AT CS DA DS DT FL FD IS LO LT PN SH SL SS ST TM UI UL US".split()
)  # VRs with a length of 16 bits (PS3.5, 7.1.2)
LONG_LENGTHS = frozenset(b"OB OD OF OL OV OW SQ SV UC UN UR UT UV".split())
FIRST_GROUPS = (0x0002, 0x0008)
"""Groups that a data set can start with: File Meta Information, or identification."""
LONGEST_FIRST_VALUE = 1024
"""Bytes of a value near the start of a data set without VRs; more means that it is something else."""


@dataclass(frozen=True)
class Encoding:
    """How elements are written: ``order`` is that of :mod:`struct`."""

    order: str
    explicit: bool


ENCODINGS = (Encoding("<", True), Encoding("<", False), Encoding(">", True))


def is_dicom(head: bytes) -> bool:
    """Whether the first bytes of a file are a DICOM preamble and its prefix (PS3.10, section 7.1)."""
    return head[PREFIX_OFFSET : PREFIX_OFFSET + len(PREFIX)] == PREFIX


def lacks_preamble(head: bytes) -> bool:
    """Whether the first bytes of a file are those of a DICOM data set that was written without a preamble.

    Its first two elements must make sense in one of DICOM's encodings: a group that a data set starts with,
    a known VR or none, an even length, a tag that follows the one before.

    Args:
        head: at least the first :data:`HEAD_LENGTH` bytes, or the whole file where it is shorter.
    """
    return any(starts_with_elements(head, encoding) for encoding in ENCODINGS)


def starts_with_elements(head: bytes, encoding: Encoding) -> bool:
    """Whether ``head`` starts with two elements of a data set in this encoding."""
    first = read_element(head, 0, encoding)
    if first is None or first[0] >> 16 not in FIRST_GROUPS:
        return False
    second = read_element(head, first[1], encoding)
    return second is not None and second[0] > first[0]


def read_element(head: bytes, start: int, encoding: Encoding) -> tuple[int, int] | None:
    """Tag of the element at ``start`` and where the next one starts; ``None`` where none can stand there."""
    if start + 12 > len(head):
        return None
    group, number = struct.unpack_from(f"{encoding.order}HH", head, start)
    vr = head[start + 4 : start + 6]
    if not encoding.explicit:
        (length,) = struct.unpack_from(f"{encoding.order}I", head, start + 4)
        value = start + 8
    elif vr in SHORT_LENGTHS:
        (length,) = struct.unpack_from(f"{encoding.order}H", head, start + 6)
        value = start + 8
    elif vr in LONG_LENGTHS:
        (length,) = struct.unpack_from(f"{encoding.order}I", head, start + 8)
        value = start + 12
    else:
        return None
    return None if length % 2 or length > LONGEST_FIRST_VALUE else (group << 16 | number, value + length)


def is_directory(head: bytes) -> bool:
    """Whether the first bytes of a file are those of a DICOMDIR, whatever its name."""
    start = head.find(DIRECTORY_ELEMENT) + len(DIRECTORY_ELEMENT)
    if not is_dicom(head) or start < len(DIRECTORY_ELEMENT):
        return False
    (length,) = struct.unpack_from("<H", head, start) if start + 2 <= len(head) else (0,)
    return head[start + 2 : start + 2 + length].rstrip(b"\0 ") == DIRECTORY_CLASS
