"""Hostile DICOM: each file is refused with a reason, at once and without memory, or read for what it is."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pydicom import Dataset
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    RLELossless,
)

from cxredge import read_radiograph
from cxredge.errors import InputError
from cxredge.limits import MEBIBYTE

SMALL_MEMORY = 64 * MEBIBYTE
UNDEFINED = 0xFFFFFFFF
RANGE = np.arange(64 * 48, dtype=np.uint16).reshape(64, 48)


@pytest.fixture
def little_memory() -> Iterator[None]:
    """The attack takes less than 64 MiB."""
    tracemalloc.start()
    yield
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < SMALL_MEMORY


def saved(dataset: Dataset, path: Path) -> Path:
    dataset.save_as(path, enforce_file_format=True)
    return path


def head(syntax: UID, *more: bytes) -> bytes:
    """Preamble and file meta information of a file that goes on in ``syntax``."""
    elements = b"".join((*more, element((0x0002, 0x0010), b"UI", syntax.encode() + b"\0" * (len(syntax) % 2))))
    return bytes(128) + b"DICM" + element((0x0002, 0x0000), b"UL", struct.pack("<I", len(elements))) + elements


def element(tag: tuple[int, int], vr: bytes, value: bytes) -> bytes:
    long = vr in (b"SQ", b"OW", b"OB", b"UN", b"UT")
    length = struct.pack("<HI", 0, len(value)) if long else struct.pack("<H", len(value))
    return struct.pack("<HH", *tag) + vr + length + value


def image_elements(rows: int, columns: int) -> bytes:
    """The image attributes of 16-bit MONOCHROME2, without pixels."""
    numbers = {0x0002: 1, 0x0010: rows, 0x0011: columns, 0x0100: 16, 0x0101: 16, 0x0102: 15, 0x0103: 0}
    parts = {tag: element((0x0028, tag), b"US", struct.pack("<H", value)) for tag, value in numbers.items()}
    parts[0x0004] = element((0x0028, 0x0004), b"CS", b"MONOCHROME2 ")
    return b"".join(parts[tag] for tag in sorted(parts))


# Sizes


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize(("rows", "columns"), [(65_535, 65_535), (40_000, 20_000), (20_001, 20_000)])
def test_more_than_400_megapixels_are_refused_before_decoding(
    rows: int, columns: int, make_dicom: Any, tmp_path: Path
) -> None:
    path = saved(make_dicom(RANGE, Rows=rows, Columns=columns), tmp_path / "a.dcm")
    with pytest.raises(InputError, match=f"{columns}x{rows} pixels"):
        read_radiograph(path)


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_a_small_compressed_stream_that_claims_a_huge_image_is_refused(
    syntax: UID, make_dicom: Any, tmp_path: Path
) -> None:
    dataset = make_dicom(RANGE)
    dataset.compress(syntax, generate_instance_uid=False)
    dataset.Rows, dataset.Columns = 65_000, 65_000
    with pytest.raises(InputError, match="65000x65000 pixels"):
        read_radiograph(saved(dataset, tmp_path / "a.dcm"))


def jpeg2000_of_size(dataset: Dataset, height: int, width: int) -> bytes:
    """The codestream of a compressed data set with another size in its SIZ marker (ISO 15444-1, A.5.1)."""
    content = bytes(dataset.PixelData)
    siz = content.index(b"\xff\x51")
    size = struct.pack(">II", width, height)
    return content[: siz + 6] + size + bytes(8) + size + content[siz + 30 :]


@pytest.mark.usefixtures("little_memory")
def test_a_jpeg2000_stream_larger_than_its_header_says_is_refused_before_decoding(
    make_dicom: Any, tmp_path: Path
) -> None:
    dataset = make_dicom(RANGE)
    dataset.compress(JPEG2000Lossless, generate_instance_uid=False)
    dataset.PixelData = jpeg2000_of_size(dataset, 60_000, 60_000)
    with pytest.raises(InputError, match=r"60000x60000|cannot be decoded"):
        read_radiograph(saved(dataset, tmp_path / "a.dcm"))


@pytest.mark.usefixtures("little_memory")
def test_a_jpeg_stream_larger_than_its_header_says_is_refused_before_decoding(make_dicom: Any, tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.fromarray((RANGE % 256).astype(np.uint8)).save(content, "JPEG")
    stream = content.getvalue()
    frame = stream.index(b"\xff\xc0")
    stream = stream[: frame + 5] + struct.pack(">HH", 65_500, 65_500) + stream[frame + 9 :]
    dataset = make_dicom((RANGE % 256).astype(np.uint8))
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].is_undefined_length = True
    with pytest.raises(InputError, match=r"65500x65500|cannot be decoded"):
        read_radiograph(saved(dataset, tmp_path / "a.dcm"))


@pytest.mark.parametrize(
    ("attribute", "vr", "value"),
    [
        ("Rows", "SS", -64),
        ("Columns", "SS", -1),
        ("Rows", "US", 0),
        ("Columns", "US", 0),
        ("Rows", "IS", "99999999999999999999"),
        ("NumberOfFrames", "IS", "-1"),
        ("NumberOfFrames", "IS", "2147483647"),
        ("SamplesPerPixel", "US", 0),
        ("SamplesPerPixel", "US", 65_535),
        ("BitsAllocated", "US", 0),
        ("BitsAllocated", "US", 65_535),
        ("BitsStored", "US", 0),
        ("BitsStored", "US", 4000),
        ("HighBit", "US", 4000),
        ("PixelRepresentation", "US", 7),
    ],
)
def test_impossible_sizes_are_refused_or_do_not_matter(
    attribute: str, vr: str, value: Any, make_dicom: Any, tmp_path: Path
) -> None:
    dataset = make_dicom(RANGE)
    tag = tag_for_keyword(attribute)
    assert tag is not None
    dataset[tag] = DataElement(tag, vr, value)
    try:
        found = read_radiograph(saved(dataset, tmp_path / "a.dcm"))
    except InputError as error:
        assert error.reason  # noqa: PT017 (either is right)
    else:
        np.testing.assert_array_equal(found.pixels, RANGE)


# Bombs


def deflated_bomb() -> bytes:
    """256 MiB of pixels that deflate to 256 KiB."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    block = bytes(MEBIBYTE)
    start = image_elements(64, 48) + struct.pack("<HH", 0x7FE0, 0x10) + b"OW\0\0" + struct.pack("<I", 256 * MEBIBYTE)
    return packer.compress(start) + b"".join(packer.compress(block) for _ in range(256)) + packer.flush()


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("filler", [0, 100, 20_000], ids=["plain", "syntax later", "syntax far behind"])
def test_a_deflated_bomb_is_refused_before_it_is_inflated(filler: int, tmp_path: Path) -> None:
    hiding = element((0x0002, 0x0003), b"UI", b"1" * filler)
    (tmp_path / "a.dcm").write_bytes(head(DeflatedExplicitVRLittleEndian, hiding) + deflated_bomb())
    with pytest.raises(InputError, match="decompression bomb"):
        read_radiograph(tmp_path / "a.dcm")


def test_a_deflated_radiograph_is_read(make_dicom: Any, tmp_path: Path) -> None:
    dataset = make_dicom(RANGE)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    np.testing.assert_array_equal(read_radiograph(saved(dataset, tmp_path / "a.dcm")).pixels, RANGE)


def test_damaged_deflated_data_is_refused(make_dicom: Any, tmp_path: Path) -> None:
    dataset = make_dicom(RANGE)
    dataset.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
    content = saved(dataset, tmp_path / "a.dcm").read_bytes()
    for end in (len(content) // 2, len(content) - 100):
        (tmp_path / "a.dcm").write_bytes(content[:end])
        with pytest.raises(InputError):
            read_radiograph(tmp_path / "a.dcm")


# Depth and number


def nested(levels: int, *, defined: bool) -> bytes:
    """Sequences in sequences, of undefined or of defined length."""
    if not defined:
        opening = struct.pack("<HH", 0x0040, 0xA730) + b"SQ\0\0" + struct.pack("<I", UNDEFINED)
        item = struct.pack("<HHI", 0xFFFE, 0xE000, UNDEFINED)
        closing = struct.pack("<HHI", 0xFFFE, 0xE00D, 0) + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
        return (opening + item) * levels + closing * levels
    total = 20 * levels
    parts = []
    for level in range(levels):
        left = total - 20 * level
        parts.append(struct.pack("<HH", 0x0040, 0xA730) + b"SQ\0\0" + struct.pack("<I", left - 12))
        parts.append(struct.pack("<HHI", 0xFFFE, 0xE000, left - 20))
    return b"".join(parts)


@pytest.mark.timeout(30)
@pytest.mark.parametrize("defined", [False, True], ids=["undefined length", "defined length"])
@pytest.mark.parametrize("levels", [900, 10_000, 100_000])
def test_deep_sequences_are_refused_or_passed_over(levels: int, defined: bool, tmp_path: Path) -> None:
    pixels = element((0x7FE0, 0x0010), b"OW", RANGE.tobytes())
    content = head(ExplicitVRLittleEndian) + image_elements(64, 48) + nested(levels, defined=defined) + pixels
    (tmp_path / "deep.dcm").write_bytes(content)
    try:
        found = read_radiograph(tmp_path / "deep.dcm")
    except InputError as error:
        assert "damaged DICOM" in error.reason or "nested" in error.reason  # noqa: PT017 (either is right)
    else:
        np.testing.assert_array_equal(found.pixels, RANGE)


@pytest.mark.timeout(30)
def test_very_many_elements_do_not_hang(tmp_path: Path) -> None:
    many = b"".join(element((0x0029, 0x1000 + n % 0xE000), b"LO", b"") for n in range(20_000))
    (tmp_path / "a.dcm").write_bytes(head(ExplicitVRLittleEndian) + many)
    with pytest.raises(InputError):
        read_radiograph(tmp_path / "a.dcm")


@pytest.mark.timeout(30)
def test_very_many_fragments_do_not_hang(make_dicom: Any, tmp_path: Path) -> None:
    dataset = make_dicom(RANGE)
    dataset.compress(RLELossless, generate_instance_uid=False)
    empty = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
    dataset.PixelData = empty * 20_000 + struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)
    with pytest.raises(InputError):
        read_radiograph(saved(dataset, tmp_path / "a.dcm"))


@pytest.mark.parametrize("length", [0x7FFFFFFF, 0xFFFFFFFE, UNDEFINED])
@pytest.mark.parametrize("vr", [b"OW", b"OB", b"UN", b"SQ", b"UT"])
def test_an_element_longer_than_the_file_is_refused(vr: bytes, length: int, tmp_path: Path) -> None:
    lie = struct.pack("<HH", 0x0040, 0xA730) + vr + b"\0\0" + struct.pack("<I", length)
    (tmp_path / "a.dcm").write_bytes(head(ExplicitVRLittleEndian) + image_elements(64, 48) + lie + bytes(100))
    with pytest.raises(InputError):
        read_radiograph(tmp_path / "a.dcm")


def test_a_lookup_table_that_claims_more_than_it_has_is_refused(make_dicom: Any, tmp_path: Path) -> None:
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [65_535, 0, 16], bytes(4)
    dataset = make_dicom(RANGE, ModalityLUTSequence=[table])
    with pytest.raises(InputError):
        read_radiograph(saved(dataset, tmp_path / "a.dcm"))
