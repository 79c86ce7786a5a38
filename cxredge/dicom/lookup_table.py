"""Lookup tables of DICOM: Modality LUT and VOI LUT (PS3.3, C.11.1 and C.11.2).

pydicom's own functions compute the table's index in the pixels' or the table's type, which overflows for 8-bit
ones, and refuse tables of 12 bits; here the index is a 32-bit number and any depth from 8 to 16 is read.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cxredge.errors import InputError

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

LARGEST_TABLE = 1 << 16
"""Entries that a descriptor of 16 bits can announce; it writes them as 0."""
DEPTHS = range(8, 17)
"""Bits of an entry."""


@dataclass(frozen=True)
class LookupTable:
    """One table.

    Attributes:
        first: value that is mapped to the first entry; smaller ones are too.
        entries: ``(N,)`` uint16; values beyond the last are mapped to it.
    """

    first: int
    entries: NDArray[np.uint16]

    def __call__(self, values: NDArray[Any]) -> NDArray[np.uint16]:
        """Map integer or floating ``values``; floating ones are rounded."""
        last = self.first + len(self.entries) - 1
        if values.dtype.kind == "f":
            values = np.rint(np.clip(values, self.first, last))
        elif int(values.min()) < self.first or int(values.max()) > last:
            values = np.clip(values.astype(np.int64), self.first, last)
        index: NDArray[Any] = values.astype(np.int64 if values.dtype.itemsize > 2 else np.int32) - self.first
        return np.asarray(self.entries[index], np.uint16)


def read_table(item: Dataset, *, little_endian: bool) -> LookupTable:
    """The table in an item of Modality or VOI LUT Sequence.

    Args:
        item: holds LUT Descriptor and LUT Data.
        little_endian: byte order of the data set, which LUT Data of VR OW has too.

    Raises:
        InputError: no table that makes sense.
    """
    try:
        count, first, depth = (int(value) for value in item.LUTDescriptor)
    except (AttributeError, TypeError, ValueError) as error:
        raise InputError("has a lookup table without a valid LUT Descriptor") from error
    count = count % LARGEST_TABLE or LARGEST_TABLE
    data = item.get("LUTData")
    if data is None or depth not in DEPTHS:
        raise InputError(f"has a lookup table of {depth} bits, or without data")
    entries = table_entries(data, count, depth, little_endian=little_endian)
    if len(entries) < count:
        raise InputError(f"has a lookup table of {len(entries)} entries that says it has {count}")
    return LookupTable(first, entries[:count])


def table_entries(data: Any, count: int, depth: int, *, little_endian: bool) -> NDArray[np.uint16]:
    """Entries of LUT Data: words, or bytes where an 8-bit table has been packed into half the words."""
    if not isinstance(data, bytes):
        return np.atleast_1d(np.asarray(data)).astype(np.uint16)
    words = np.frombuffer(data[: len(data) // 2 * 2], "<u2" if little_endian else ">u2").astype(np.uint16)
    if depth == 8 and len(words) < count:
        in_order = words if little_endian else words.byteswap()
        return in_order.view(np.uint8).astype(np.uint16) if np.little_endian else words.view(np.uint8).astype(np.uint16)
    return words
