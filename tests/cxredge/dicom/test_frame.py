"""The one compressed frame of an image: what is checked is what is decoded, wherever the offset tables point."""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from cxredge.dicom.reading import radiograph_from_dataset
from cxredge.errors import InputError

CORPUS = Path(__file__).parents[2] / "corpus"
ROW, COLUMN = np.mgrid[:64, :48]
PIXELS = (ROW * 50 + COLUMN**2 % 97).astype(np.uint16)
SYNTAXES = (RLELossless, JPEG2000Lossless, JPEGLSLossless)

syntaxes = pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda uid: uid.keyword)


def items(fragments: Sequence[bytes], table: bytes = b"", end: bytes = b"\xfe\xff\xdd\xe0\0\0\0\0") -> bytes:
    """Encapsulated pixel data, right or wrong (PS3.5, A.4)."""
    parts = [b"\xfe\xff\0\xe0" + struct.pack("<I", len(part)) + part for part in (table, *fragments)]
    return b"".join(parts) + end


@pytest.fixture
def compressed(make_dicom: Any, syntax: str) -> tuple[Dataset, bytes]:
    """A compressed data set and its frame."""
    dataset = make_dicom(PIXELS, 12)
    dataset.compress(syntax, generate_instance_uid=False)
    return dataset, get_frame(dataset.PixelData, 0, number_of_frames=1)


def read(dataset: Dataset, content: bytes) -> np.ndarray:
    dataset.PixelData = content
    return radiograph_from_dataset(dataset).pixels


@pytest.mark.filterwarnings("ignore:.*non-conformant padding")
@syntaxes
def test_a_frame_may_be_in_any_number_of_fragments(compressed: tuple[Dataset, bytes]) -> None:
    dataset, frame = compressed
    for fragments in (
        [frame[:100], frame[100:300], frame[300:]],
        [frame[:101], frame[101:]],
        [frame[place : place + 1] for place in range(len(frame))],
        [b"", frame, b""],
        [frame + bytes(200)],
    ):
        np.testing.assert_array_equal(read(dataset, items(fragments)), PIXELS)
    for end in (b"", b"\xfe\xff"):
        np.testing.assert_array_equal(read(dataset, items([frame], end=end)), PIXELS)


@syntaxes
@pytest.mark.parametrize("table", [b"\0\0\0", b"\0\0\0\0", b"\4\0\0\0", b"\0\0\0\x7f", b"\xff\xff\xff\xff"])
def test_a_wrong_offset_table_does_not_matter(table: bytes, compressed: tuple[Dataset, bytes]) -> None:
    dataset, frame = compressed
    np.testing.assert_array_equal(read(dataset, items([frame], table)), PIXELS)


@syntaxes
@pytest.mark.parametrize("offset", [b"", b"\0\0\0\0", struct.pack("<Q", 0), struct.pack("<Q", 1 << 63)])
@pytest.mark.parametrize("length", [b"", struct.pack("<Q", 10), struct.pack("<Q", 1 << 60)])
def test_a_wrong_extended_offset_table_does_not_matter(
    offset: bytes, length: bytes, compressed: tuple[Dataset, bytes]
) -> None:
    dataset, frame = compressed
    dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths = offset, length
    np.testing.assert_array_equal(read(dataset, items([frame])), PIXELS)


@pytest.mark.filterwarnings("ignore:.*non-conformant padding")
@syntaxes
@pytest.mark.parametrize("extended", [False, True], ids=["basic", "extended"])
def test_an_offset_table_does_not_lead_to_a_frame_that_nobody_has_checked(
    extended: bool, syntax: str, compressed: tuple[Dataset, bytes], make_dicom: Any
) -> None:
    large = make_dicom(np.zeros((3000, 3000), np.uint16), 12)
    large.compress(syntax, generate_instance_uid=False)
    other = get_frame(large.PixelData, 0, number_of_frames=1)
    dataset, frame = compressed
    behind = 8 + len(frame)
    if extended:
        dataset.ExtendedOffsetTable = struct.pack("<Q", behind)
        dataset.ExtendedOffsetTableLengths = struct.pack("<Q", len(other))
    content = items([frame, other], b"" if extended else struct.pack("<I", behind))
    if syntax == RLELossless:  # no header to tell frames apart; its decoder ends where the image does
        np.testing.assert_array_equal(read(dataset, content), PIXELS)
        return
    with pytest.raises(InputError, match="holds 2 compressed frames"):
        read(dataset, content)


@syntaxes
def test_two_frames_are_refused_where_one_is_announced(syntax: str, compressed: tuple[Dataset, bytes]) -> None:
    dataset, frame = compressed
    table = struct.pack("<II", 0, 8 + len(frame))
    with pytest.raises(InputError, match="holds 2 compressed frames"):
        read(dataset, items([frame, frame], table))
    dataset.ExtendedOffsetTable = struct.pack("<QQ", 0, 8 + len(frame))
    dataset.ExtendedOffsetTableLengths = struct.pack("<QQ", len(frame), len(frame))
    with pytest.raises(InputError, match="holds 2 compressed frames"):
        read(dataset, items([frame, frame]))


@syntaxes
def test_pixel_data_that_is_not_in_items_is_refused(syntax: str, compressed: tuple[Dataset, bytes]) -> None:
    dataset, frame = compressed
    for content in (frame, b"", items([frame])[:8] + frame, items([frame])[:6], items([])):
        with pytest.raises(InputError, match=r"not in whole items|no valid header|is empty"):
            read(dataset, content)


@pytest.mark.parametrize("syntax", [JPEGLSLossless], ids=["JPEGLSLossless"])
@pytest.mark.parametrize("ending", [b"", b"\xff", b"\xff\xd9 \xff\xda\0\0", bytes(40)])
def test_a_jpeg_ls_without_an_end_is_refused_at_once(ending: bytes, compressed: tuple[Dataset, bytes]) -> None:
    dataset, frame = compressed
    assert frame.rstrip(b"\0").endswith(b"\xff\xd9")
    endless = frame.rstrip(b"\0")[:-2] + ending
    for place in (len(endless) // 3, len(endless) // 2):  # of which CharLS made half a minute's work
        damaged = endless[:place] + b"\x42\x72" + endless[place:]
        started = time.monotonic()
        with pytest.raises(InputError, match="cut off, or its end is missing"):
            read(dataset, items([damaged + bytes(len(damaged) % 2)]) + b"\xff\xd9")
        assert time.monotonic() - started < 1


@pytest.mark.parametrize("unit", [0, 1, 2, 3, 0x6C])
@pytest.mark.parametrize("name", ["jpeg-lossless", "jpeg-extended"])
def test_a_jpeg_that_only_gdcm_decodes_may_have_any_density(name: str, unit: int) -> None:
    plain = dcmread(CORPUS / f"{name}.dcm")
    frame = get_frame(plain.PixelData, 0, number_of_frames=1)
    jfif = b"\xff\xe0\0\x10JFIF\0\1\1" + bytes([unit]) + b"\0\1\0\1\0\0"
    expected = read(plain, items([frame]))
    np.testing.assert_array_equal(read(plain, items([frame[:2] + jfif + frame[2:]])), expected)


@pytest.mark.parametrize("damage", ["a table beyond its size", "another coding", "cut off"])
def test_a_damaged_jpeg_of_twelve_bits_is_refused(damage: str) -> None:
    dataset = dcmread(CORPUS / "jpeg-extended.dcm")
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    table = frame.index(b"\xff\xc4") + 5
    changed = {
        "a table beyond its size": frame[:table] + b"\xc8" + frame[table + 1 :],
        "another coding": frame.replace(b"\xff\xc1", b"\xff\xc9"),
        "cut off": frame[:400],
    }
    with pytest.raises(InputError, match=r"12 bits\) cannot be decoded"):
        read(dataset, items([changed[damage]]))
