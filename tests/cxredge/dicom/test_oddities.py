"""What other vendors' headers look like: read as it is meant, or refused with a reason that a person can act on."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_data_element, write_file_meta_info
from pydicom.uid import ExplicitVRLittleEndian

from cxredge import Radiograph, read_radiograph
from cxredge.errors import InputError
from cxredge.preprocessing import network_input

ROW, COLUMN = np.mgrid[:64, :48]
PIXELS = (100 + ROW * 50 + COLUMN**2 % 97).astype(np.uint16)
LONG = {"OB", "OW", "UN"}
"""VRs with a length of 32 bits."""

Raw = tuple[str, str, bytes]
"""Keyword (or tag, in hexadecimal digits), VR and value of an element as it stands in the file."""


def number(value: int, form: str = "H") -> bytes:
    return struct.pack(f"<{form}", value)


def element(keyword: str, vr: str, value: bytes) -> tuple[int, bytes]:
    """Tag and bytes of an element in explicit little endian, whatever it holds."""
    tag = int(keyword, 16) if keyword.isdigit() else tag_for_keyword(keyword)
    assert tag is not None
    value += b" " * (len(value) % 2)
    length = struct.pack("<2xI" if vr in LONG else "<H", len(value))
    return tag, struct.pack("<HH", tag >> 16, tag & 0xFFFF) + vr.encode() + length + value


def file_with(path: Path, make_dicom: Any, *changes: Raw, without: str = "", pixels: np.ndarray = PIXELS) -> Path:
    """A file of ``pixels`` in which elements stand just so, and one does not stand at all."""
    dataset = make_dicom(pixels, 12)
    dataset["PixelData"].VR = "OW"
    elements = {}
    for keyword, vr, value in changes:
        tag, content = element(keyword, vr, value)
        elements[tag] = content
    for item in dataset:
        if item.tag not in elements and item.keyword != without:
            elements[item.tag] = written(item)
    meta = DicomBytesIO()
    write_file_meta_info(meta, dataset.file_meta, enforce_standard=False)
    path.write_bytes(bytes(128) + b"DICM" + meta.getvalue() + b"".join(elements[tag] for tag in sorted(elements)))
    return path


def written(item: DataElement) -> bytes:
    """A data element as pydicom writes it."""
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = True, False
    write_data_element(buffer, item)
    return buffer.getvalue()


MEANT: dict[str, tuple[Raw, ...]] = {
    "as it is": (),
    "interpretation in small letters": (("PhotometricInterpretation", "CS", b"monochrome2 "),),
    "interpretation of another VR": (("PhotometricInterpretation", "LO", b"MONOCHROME2"),),
    "rows as text": (("Rows", "IS", b"64"),),
    "rows of 32 bits": (("Rows", "UL", number(64, "I")),),
    "bits stored as a decimal": (("BitsStored", "DS", b"12.0"),),
    "bits stored signed": (("BitsStored", "SS", number(12, "h")),),
    "high bit empty": (("HighBit", "US", b""),),
    "high bit beyond the word": (("HighBit", "US", number(40)),),
    "high bit below the value": (("HighBit", "US", number(3)),),
    "frames with a blank": (("NumberOfFrames", "IS", b"1 "),),
    "frames with a point": (("NumberOfFrames", "IS", b"1.0 "),),
    "frames empty": (("NumberOfFrames", "IS", b""),),
    "frames 0": (("NumberOfFrames", "IS", b"0 "),),
    "frames as a number": (("NumberOfFrames", "US", number(1)),),
    "window empty": (("WindowCenter", "DS", b""), ("WindowWidth", "DS", b"")),
    "window of width 0": (("WindowCenter", "DS", b"900"), ("WindowWidth", "DS", b"0")),
    "window of negative width": (("WindowCenter", "DS", b"900"), ("WindowWidth", "DS", b"-9")),
    "window without a width": (("WindowCenter", "DS", b"900"),),
    "window in words": (("WindowCenter", "DS", b"auto"), ("WindowWidth", "DS", b"auto")),
    "window with decimal commas": (("WindowCenter", "DS", b"900,5"), ("WindowWidth", "DS", b"80,0")),
    "window whose first is missing": (("WindowCenter", "DS", b"\\900"), ("WindowWidth", "DS", b"\\80")),
    "window beyond all numbers": (("WindowCenter", "DS", b"1e400"), ("WindowWidth", "DS", b"1e400")),
    "window as numbers": (
        ("WindowCenter", "FD", struct.pack("<d", 2047)),
        ("WindowWidth", "FD", struct.pack("<d", 9000)),
    ),
    "slope 0": (("RescaleSlope", "DS", b"0"), ("RescaleIntercept", "DS", b"5")),
    "slope empty": (("RescaleSlope", "DS", b""), ("RescaleIntercept", "DS", b"")),
    "padding limit without padding": (("PixelPaddingRangeLimit", "US", number(200)),),
    "padding that is all of the image": (
        ("PixelPaddingValue", "US", number(0)),
        ("PixelPaddingRangeLimit", "US", number(4095)),
    ),
    "padding in words": (("PixelPaddingValue", "LO", b"none"),),
    "padding of two values": (("PixelPaddingValue", "US", number(0) + number(5)),),
    "presentation of another VR": (("PresentationLUTShape", "LO", b"IDENTITY"),),
    "character set unknown": (("SpecificCharacterSet", "CS", b"KLINGON"),),
    "padding behind the data set": (("DataSetTrailingPadding", "OB", bytes(90)),),
    "pixel data of unknown VR": (("PixelData", "UN", PIXELS.tobytes()),),
    "pixel data as bytes": (("PixelData", "OB", PIXELS.tobytes()),),
    "a pair of bytes behind the pixels": (("PixelData", "OW", PIXELS.tobytes() + b"\0\0"),),
    "a syntax with a blank behind it": (),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", MEANT)
def test_a_header_that_is_odd_but_plain_is_read_as_it_is_meant(name: str, make_dicom: Any, tmp_path: Path) -> None:
    path = file_with(tmp_path / "odd.dcm", make_dicom, *MEANT[name])
    if "syntax" in name:
        syntax = ExplicitVRLittleEndian.encode()
        path.write_bytes(path.read_bytes().replace(syntax + b"\0", syntax + b" ", 1))
    read = read_radiograph(path)
    np.testing.assert_array_equal(read.pixels, PIXELS)
    np.testing.assert_array_equal(network_input(read, 32), network_input(Radiograph(PIXELS), 32))
    assert (read.polarity, read.notes) == ("MONOCHROME2", ())


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("keyword", ["SamplesPerPixel", "HighBit"])
def test_what_can_only_have_one_value_may_be_missing(keyword: str, make_dicom: Any, tmp_path: Path) -> None:
    read = read_radiograph(file_with(tmp_path / "odd.dcm", make_dicom, without=keyword))
    np.testing.assert_array_equal(read.pixels, PIXELS)


@pytest.mark.parametrize(
    ("keyword", "name"),
    [
        ("Rows", "Rows"),
        ("Columns", "Columns"),
        ("BitsAllocated", "Bits Allocated"),
        ("BitsStored", "Bits Stored"),
        ("PixelRepresentation", "Pixel Representation"),
        ("PhotometricInterpretation", "photometric interpretation"),
    ],
)
def test_what_is_missing_is_named(keyword: str, name: str, make_dicom: Any, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"has no {name}"):
        read_radiograph(file_with(tmp_path / "odd.dcm", make_dicom, without=keyword))


REFUSED: dict[str, tuple[Raw, str]] = {
    "interpretation of no standard": (("PhotometricInterpretation", "CS", b"MONOCHROME"), "interpretation MONOCHROME,"),
    "interpretation that is a name": (
        ("PhotometricInterpretation", "CS", b"SECRET^PERSON "),
        "interpretation that is no",
    ),
    "rows negative": (("Rows", "SS", number(-64, "h")), "size of 48x-64"),
    "rows twice": (("Rows", "US", number(64) * 2), "Rows is not one number"),
    "rows cut off": (("Rows", "US", b"\x40\0\0\0\0"), "Rows is not one number"),
    "more bits than the word has": (("BitsStored", "US", number(20)), "has 20 of 16 bits"),
    "no bits": (("BitsStored", "US", number(0)), "has 0 of 16 bits"),
    "words that are no bytes": (("BitsAllocated", "US", number(12)), "has 12 of 12 bits"),
    "no samples": (("SamplesPerPixel", "US", number(0)), "has 0 samples"),
    "samples without end": (("SamplesPerPixel", "US", number(0xFFFF)), "has 65535 samples"),
    "neither signed nor unsigned": (("PixelRepresentation", "US", number(2)), "Pixel Representation of 2"),
    "frames in words": (("NumberOfFrames", "IS", b"one "), "NumberOfFrames is not one number"),
    "frames below none": (("NumberOfFrames", "IS", b"-1"), "holds -1 frames"),
    "slope with a decimal comma": (("RescaleSlope", "DS", b"1,5 "), "its rescale is not one number each"),
    "slope twice": (("RescaleSlope", "DS", b"1\\1 "), "its rescale is not one number each"),
    "intercept without end": (("RescaleIntercept", "DS", b"-inf"), "its rescale is not finite"),
    "pixels of another VR": (("PixelData", "US", PIXELS.tobytes()), "its Pixel Data has VR US"),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", REFUSED)
def test_a_header_that_leaves_doubt_is_refused_with_the_reason(name: str, make_dicom: Any, tmp_path: Path) -> None:
    change, reason = REFUSED[name]
    with pytest.raises(InputError, match=reason) as told:
        read_radiograph(file_with(tmp_path / "odd.dcm", make_dicom, change))
    assert "SECRET" not in str(told.value).upper()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "value", [b"0.2", b"0,2\\0,2", b"0.2\\0.2\\0.2", b"0.2 mm\\0.2 mm", b"0\\0", b"", b"0.0002\\0.0002"]
)
def test_a_spacing_in_doubt_counts_as_unknown(value: bytes, make_dicom: Any, tmp_path: Path) -> None:
    for keyword in ("PixelSpacing", "ImagerPixelSpacing"):
        assert read_radiograph(file_with(tmp_path / "odd.dcm", make_dicom, (keyword, "DS", value))).spacing is None


@pytest.mark.parametrize("value", [b" 0.2 \\ 0.2 ", b"2e-1\\+0.2"])
def test_a_spacing_is_read_however_it_is_written(value: bytes, make_dicom: Any, tmp_path: Path) -> None:
    path = file_with(tmp_path / "odd.dcm", make_dicom, ("PixelSpacing", "DS", value))
    assert read_radiograph(path).spacing == (0.2, 0.2)


def test_overlays_in_the_upper_bits_are_no_part_of_the_pixels(make_dicom: Any, tmp_path: Path) -> None:
    drawn = PIXELS | ((ROW + COLUMN) % 7 == 0).astype(np.uint16) << 12 | (ROW < 20).astype(np.uint16) << 15
    overlay = (("60000010", "US", number(64)), ("60000011", "US", number(48)))
    bits = (("60000100", "US", number(16)), ("60000102", "US", number(12)))
    path = file_with(tmp_path / "odd.dcm", make_dicom, *overlay, *bits, pixels=drawn)
    np.testing.assert_array_equal(read_radiograph(path).pixels, PIXELS)


@pytest.mark.parametrize("limits", [(0, None), (0, 50), (50, 0), (None, None)])
def test_padding_counts_in_either_order_of_its_limits(
    limits: tuple[int | None, int | None], make_dicom: Any, tmp_path: Path
) -> None:
    padded = PIXELS.copy()
    padded[:9, 5:] = 0  # no border, which would be found without any attribute
    keywords = ("PixelPaddingValue", "PixelPaddingRangeLimit")
    changes = [
        (keyword, "US", number(limit)) for keyword, limit in zip(keywords, limits, strict=True) if limit is not None
    ]
    read = read_radiograph(file_with(tmp_path / "odd.dcm", make_dicom, *changes, pixels=padded))
    assert read.value_range == ((float(PIXELS.min()), float(PIXELS.max())) if changes else None)
