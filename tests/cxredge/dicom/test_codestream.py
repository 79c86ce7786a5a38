"""Headers of compressed frames: read before a decoder sees them, and held against the file's own."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydicom.encaps import encapsulate, get_frame
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit, JPEGLSLossless, RLELossless

from cxredge.dicom.codestream import FrameHeader, frame_header, without_jfif
from cxredge.dicom.reading import radiograph_from_dataset
from cxredge.errors import InputError

PIXELS = np.arange(64 * 48, dtype=np.uint16).reshape(64, 48)


def jpeg(pixels: np.ndarray, **options: Any) -> bytes:
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", **options)
    return buffer.getvalue()


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless], ids=lambda uid: uid.keyword)
def test_size_and_depth_are_read(syntax: str, make_dicom: Any) -> None:
    dataset = make_dicom(PIXELS, 12)
    dataset.compress(syntax)
    assert frame_header(get_frame(dataset.PixelData, 0, number_of_frames=1)) == FrameHeader(64, 48, 1, 12)


def test_size_of_a_jpeg_behind_its_other_segments() -> None:
    grey = (PIXELS % 256).astype(np.uint8)
    colour = np.repeat(grey[..., None], 3, axis=2)
    for content in (jpeg(grey), jpeg(grey, progressive=True), jpeg(grey, comment=b"c" * 60000, dpi=(72, 72))):
        assert frame_header(content) == FrameHeader(64, 48, 1, 8)
    assert frame_header(jpeg(colour)) == FrameHeader(64, 48, 3, 8)


def test_run_length_coding_has_no_header(make_dicom: Any) -> None:
    dataset = make_dicom(PIXELS, 12)
    dataset.compress(RLELossless)
    assert frame_header(get_frame(dataset.PixelData, 0, number_of_frames=1)) is None


def test_markers_within_other_data_are_no_headers() -> None:
    for inside in (b"\xff\x4f\xff\x51", b"\xff\xd8\xff\xc0"):
        assert frame_header(b"\1\0\0\0" + inside + bytes(100)) is None


def test_a_codestream_in_the_boxes_of_a_jp2_file(make_dicom: Any) -> None:
    dataset = make_dicom(PIXELS, 12)
    dataset.compress(JPEG2000Lossless)
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    boxes = b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(60)
    assert frame_header(boxes + frame) == FrameHeader(64, 48, 1, 12)


def test_a_jpeg_without_its_tables_or_with_broken_segments_has_none() -> None:
    content = jpeg((PIXELS % 256).astype(np.uint8))
    tables = content.index(b"\xff\xc4")
    for place, value in ((tables + 1, 0xD6), (tables, 0x3F), (2, 0x00)):
        changed = bytearray(content)
        changed[place] = value
        first_only = bytes(changed) if place == 2 else bytes(changed).replace(b"\xff\xc4", b"\xff\xfe")
        assert frame_header(first_only) is None


def test_only_jfif_segments_are_taken_out_of_a_jpeg() -> None:
    content = jpeg((PIXELS % 256).astype(np.uint8), comment=b"\xff\xe0\0\4ab", dpi=(72, 72))
    jfif = content[2:20]
    assert (jfif[:2], jfif[4:9]) == (b"\xff\xe0", b"JFIF\0")
    bare = without_jfif(content)
    assert bare == content[:2] + content[20:]
    assert without_jfif(bare) == bare
    assert without_jfif(content[:2] + jfif + content[2:]) == bare
    cut = content[:9]
    assert without_jfif(cut) == b"\xff\xd8"


@given(st.binary(max_size=200))
def test_any_bytes_are_read_without_an_error(content: bytes) -> None:
    for start in (b"", b"\xff\xd8", b"\xff\x4f\xff\x51"):
        frame_header(start + content)
        assert len(without_jfif(start + content)) <= len(start + content)


@pytest.mark.parametrize(("keyword", "value"), [("Rows", 60), ("Columns", 480), ("BitsAllocated", 8)])
@pytest.mark.parametrize("syntax", [JPEG2000Lossless, JPEGLSLossless], ids=lambda uid: uid.keyword)
def test_a_header_that_the_frame_contradicts_is_refused(syntax: str, keyword: str, value: int, make_dicom: Any) -> None:
    dataset = make_dicom(PIXELS, 12)
    dataset.compress(syntax)
    setattr(dataset, keyword, value)
    if keyword == "BitsAllocated":
        dataset.BitsStored = 8
    with pytest.raises(InputError, match="header says"):
        radiograph_from_dataset(dataset)


def test_a_colour_frame_under_a_grey_header_is_refused(make_dicom: Any) -> None:
    grey = (PIXELS % 256).astype(np.uint8)
    dataset = make_dicom(grey)
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.PixelData = encapsulate([jpeg(np.repeat(grey[..., None], 3, axis=2))])
    dataset["PixelData"].is_undefined_length = True
    with pytest.raises(InputError, match="1 samples, the compressed image has 48x64 of 3"):
        radiograph_from_dataset(dataset)


def test_a_frame_that_is_no_jpeg_is_refused_before_it_is_decoded(make_dicom: Any) -> None:
    dataset = make_dicom((PIXELS % 256).astype(np.uint8))
    dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.PixelData = encapsulate([b"\xff\xd8 this is no JPEG "])
    dataset["PixelData"].is_undefined_length = True
    with pytest.raises(InputError, match="no valid header"):
        radiograph_from_dataset(dataset)


@pytest.mark.timeout(3)
def test_a_jpeg_ls_that_is_cut_off_is_refused_before_its_decoder_searches_for_the_end(make_dicom: Any) -> None:
    dataset = make_dicom(PIXELS, 12)
    dataset.compress(JPEGLSLossless)
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    for share in (0.1, 0.5, 0.9):
        dataset.PixelData = encapsulate([frame[: int(share * len(frame))]])
        with pytest.raises(InputError, match="cut off"):
            radiograph_from_dataset(dataset)
