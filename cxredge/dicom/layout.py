"""How the pixels of a DICOM image are laid out, as its header says, checked before anything is decoded.

What a header announces is held against the pixel data before memory is taken or a decoder called: a decoder in C
that gets an image of another size than it was promised is how a process dies. Numbers are read whatever VR they
were written with, and handed on as numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cxredge.dicom.spacing import text
from cxredge.errors import InputError
from cxredge.limits import require_image_size

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

OTHER_PIXEL_DATA = {"FloatPixelData": "floating", "DoubleFloatPixelData": "floating"}
NAMES = {
    "Rows": "Rows",
    "Columns": "Columns",
    "BitsAllocated": "Bits Allocated",
    "BitsStored": "Bits Stored",
    "SamplesPerPixel": "Samples per Pixel",
    "PixelRepresentation": "Pixel Representation",
}
"""Attributes that an image cannot do without (PS3.3, C.7.6.3), and how the standard writes them."""
FEWEST_BITS = 8
"""Bits stored of a radiograph; a picture of one bit is a mask or a drawing."""
ONE_SAMPLE = frozenset({"MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"})
"""Photometric interpretations that can have nothing but one sample a pixel."""


@dataclass(frozen=True)
class PixelLayout:
    """How an image's pixels are stored.

    Attributes:
        interpretation: Photometric Interpretation in capitals, empty where there is none.
        rows: height in pixels.
        columns: width in pixels.
        samples: values a pixel.
        allocated: bits of the word that a value lies in.
        stored: bits of the value.
        high_bit: the value's highest bit within its word, as the header has it; not to be relied on.
        signed: whether values are two's complement.
        planar: whether the samples lie in planes, one after the other.
    """

    interpretation: str
    rows: int
    columns: int
    samples: int
    allocated: int
    stored: int
    high_bit: int
    signed: bool
    planar: bool

    @property
    def byte_count(self) -> int:
        """Bytes of the image, uncompressed."""
        samples = 2 if self.interpretation == "YBR_FULL_422" else self.samples  # two pixels share their chroma
        return self.rows * self.columns * samples * self.allocated // 8


def pixel_layout(dataset: Dataset) -> PixelLayout:
    """The layout of a data set's one image.

    Raises:
        InputError: no image, several, of an impossible size or depth, or an attribute is missing or makes no sense.
    """
    require_pixel_data(dataset)
    frames = header_number(dataset, "NumberOfFrames", 1) or 1  # as pydicom takes a number of 0
    if frames != 1:
        raise InputError(f"holds {frames} frames, a radiograph has one; extract the frame that is meant")
    interpretation = text(dataset.get("PhotometricInterpretation"))
    rows, columns = header_number(dataset, "Rows"), header_number(dataset, "Columns")
    require_image_size(rows, columns)
    allocated, stored = header_number(dataset, "BitsAllocated"), header_number(dataset, "BitsStored")
    if stored < FEWEST_BITS or allocated < stored or allocated % 8:
        raise InputError(
            f"has {stored} of {allocated} bits a pixel, a radiograph has {FEWEST_BITS} to 16 of 8, 16 or 32"
        )
    samples = header_number(dataset, "SamplesPerPixel", 1 if interpretation in ONE_SAMPLE else None)
    if samples not in (1, 3):
        raise InputError(f"has {samples} samples a pixel, a radiograph has one, or three in colour")
    sign = header_number(dataset, "PixelRepresentation")
    if sign not in (0, 1):
        raise InputError(f"has a Pixel Representation of {sign}, which is 0 for unsigned values and 1 for signed ones")
    return PixelLayout(
        interpretation,
        rows,
        columns,
        samples,
        allocated,
        stored,
        header_number(dataset, "HighBit", stored - 1),
        bool(sign),
        bool(header_number(dataset, "PlanarConfiguration", 0)),
    )


def require_pixel_data(dataset: Dataset) -> None:
    """Raise :class:`InputError` where a data set has no integer pixels, or no bytes of them."""
    if "PixelData" not in dataset:
        kind = next((kind for keyword, kind in OTHER_PIXEL_DATA.items() if keyword in dataset), None)
        if kind:
            raise InputError(f"holds {kind} pixels (a parametric map), a radiograph has integers")
        raise InputError("holds no image (no Pixel Data), or is cut off before it")
    if not isinstance(dataset.PixelData, bytes):
        raise InputError(f"is a damaged DICOM file: its Pixel Data has VR {dataset['PixelData'].VR}, not OB or OW")


def header_number(dataset: Dataset, keyword: str, absent: int | None = None) -> int:
    """A whole number of the header, ``absent`` where there is none.

    Raises:
        InputError: it is something else, or there is none and no number that could stand for it.
    """
    value = dataset.get(keyword)
    if value is None or value == "":
        if absent is None:
            raise InputError(f"has no {NAMES[keyword]}, without which its pixels cannot be read")
        return absent
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"is a damaged DICOM file: {keyword} is not one number") from error
