"""Hostile and unusual PNG, JPEG, TIFF and NPY: bombs, 16-bit colour, EXIF orientation, damaged data."""

from __future__ import annotations

import io
import os
import struct
import tracemalloc
import warnings
import zlib
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from cxredge import read_radiograph
from cxredge.errors import InputError

ROW, COLUMN = np.mgrid[:64, :48]
RAMP8 = ((64 * 48 - 1 - (ROW * 48 + COLUMN)) % 251).astype(np.uint8)
SMOOTH8 = (2 * ROW + COLUMN).astype(np.uint8)
RAMP16 = (np.arange(64 * 48).reshape(64, 48) * 21).astype(np.uint16)
ORIENTATION = 274
SMALL_MEMORY = 20 << 20


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width: int, height: int, data: bytes, bits: int = 8) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, bits, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def jpeg_header(width: int, height: int) -> bytes:
    """A JPEG that promises a size and stops in its first scan."""
    content = io.BytesIO()
    Image.fromarray(SMOOTH8).save(content, "JPEG")
    found = content.getvalue()
    frame = found.index(b"\xff\xc0")
    return found[: frame + 5] + struct.pack(">HH", height, width) + found[frame + 9 :]


def tiff_header(width: int, height: int, pages: int = 1) -> bytes:
    """An uncompressed one-strip 8-bit TIFF whose strip is missing."""
    tags = {256: width, 257: height, 258: 8, 259: 1, 262: 1, 273: 8, 277: 1, 278: height, 279: 100}
    size = 2 + 12 * len(tags) + 4
    directories = b"".join(
        struct.pack("<H", len(tags))
        + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
        + struct.pack("<I", 8 + size * (page + 1) if page + 1 < pages else 0)
        for page in range(pages)
    )
    return b"II*\0" + struct.pack("<I", 8) + directories


def npy_header(shape: str, descr: str = "'<u2'") -> bytes:
    text = f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


BOMBS = {
    "side.png": png(70_000, 40, zlib.compress(bytes(1000))),
    "area.png": png(20_001, 20_000, zlib.compress(bytes(1000))),
    "largest.png": png(2**31 - 1, 2**31 - 1, zlib.compress(bytes(1000))),
    "area.jpg": jpeg_header(65_500, 65_500),
    "area.tif": tiff_header(60_000, 60_000),
    "side.tif": tiff_header(2**31, 64),
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_promises_more_than_400_megapixels_is_refused_before_memory_is_taken(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(BOMBS[name])
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=r"decompression bomb or too large: \d+x\d+ pixels, at most 400 megapix"):
            read_radiograph(tmp_path / name)
        assert tracemalloc.get_traced_memory()[1] < SMALL_MEMORY
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (npy_header("(1000000, 1000000)"), "NPY"),
        (npy_header("(20001, 20000)", "'<u2'"), "NPY"),
        (npy_header("(10000000000000000000000, 64)"), "NPY"),
        (npy_header("(-64, -64)"), "NPY"),
        (npy_header("(0, 64)"), "64x0 pixels"),
        (npy_header("(64, 64)", "('<u2', (1000, 1000))"), "NPY"),
        (npy_header("(64, 64)", "'|O'"), "NPY"),
        (npy_header("(64, 64)", "[('a', '<u2')]"), "NPY"),
    ],
    ids=["enormous", "too large", "beyond 64 bits", "negative", "empty", "array in array", "objects", "record"],
)
def test_an_npy_header_that_lies_is_refused_before_memory_is_taken(header: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(header + bytes(64 * 64))
    tracemalloc.start()
    try:
        with pytest.raises(InputError, match=said):
            read_radiograph(tmp_path / "a.npy")
        assert tracemalloc.get_traced_memory()[1] < SMALL_MEMORY
    finally:
        tracemalloc.stop()


def test_an_npy_that_is_as_large_as_it_says_is_still_refused(tmp_path: Path) -> None:
    header = npy_header("(20001, 20000)", "'|u1'")
    with (tmp_path / "a.npy").open("wb") as file:
        file.write(header)
        os.truncate(file.fileno(), len(header) + 20_001 * 20_000)  # sparse
    with pytest.raises(InputError, match=r"20000x20001 pixels, at most 400 megapixels"):
        read_radiograph(tmp_path / "a.npy")


def test_a_file_of_terabytes_is_refused_unread(tmp_path: Path) -> None:
    for name, start in (("a.png", b"\x89PNG\r\n\x1a\n"), ("a.dcm", bytes(128) + b"DICM")):
        with (tmp_path / name).open("wb") as file:
            file.write(start)
            os.truncate(file.fileno(), 1 << 42)
        with pytest.raises(InputError, match="has 4398046511104 bytes, at most 4294967296 are read"):
            read_radiograph(tmp_path / name)


def test_larger_than_pillows_own_limit_is_read_without_touching_it(tmp_path: Path) -> None:
    side = 13_400  # 179.6 megapixels of one bit; Pillow refuses from 179.0
    stride = (side + 7) // 8
    rows = (b"\0" + b"\xff" * stride) * (side // 2) + (b"\0" + bytes(stride)) * (side // 2)
    (tmp_path / "a.png").write_bytes(png(side, side, zlib.compress(rows, 1), bits=1))
    before = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # Pillow warns from 89 megapixels
        pixels = read_radiograph(tmp_path / "a.png").pixels
    assert pixels.shape == (side, side)
    assert (pixels[0, 0], pixels[-1, -1]) == (255, 0)
    assert before == Image.MAX_IMAGE_PIXELS


@pytest.mark.slow
def test_400_megapixels_of_16_bits_are_read(tmp_path: Path) -> None:
    row = np.arange(20_000, dtype=">u2")
    packer = zlib.compressobj(1)
    data = b"".join(packer.compress(b"\0" + (row + y).astype(">u2").tobytes()) for y in range(20_000)) + packer.flush()
    (tmp_path / "a.png").write_bytes(png(20_000, 20_000, data, bits=16))
    pixels = read_radiograph(tmp_path / "a.png").pixels
    assert pixels.shape == (20_000, 20_000)
    assert (pixels[0, 0], pixels[0, -1], pixels[-1, -1]) == (0, 19_999, 39_998)


def test_a_tiff_of_very_many_pages_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(tiff_header(64, 64, pages=100_000))
    with pytest.raises(InputError, match="several pages"):
        read_radiograph(tmp_path / "a.tif")


def test_a_tiff_whose_pages_go_in_a_circle_is_refused(tmp_path: Path) -> None:
    content = bytearray(tiff_header(64, 64, pages=2))
    content[-4:] = struct.pack("<I", 8)  # the second page's next is the first
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(InputError, match="several pages"):
        read_radiograph(tmp_path / "a.tif")


@pytest.mark.parametrize("name", ["a.bmp", "a.gif", "a.webp", "a.ppm", "a.ico"])
def test_other_formats_that_pillow_knows_are_not_opened(name: str, tmp_path: Path) -> None:
    Image.fromarray(RAMP8).save(tmp_path / name)
    with pytest.raises(InputError, match=r"not an image that can be read \(PNG, JPEG, TIFF, NPY or DICOM\)"):
        read_radiograph(tmp_path / name)


# 16-bit colour


def save_deep(path: Path, channels: list[np.ndarray]) -> Path:
    """Write 16-bit channels, given as red, green, blue and perhaps alpha."""
    red, green, blue, *alpha = channels
    assert cv2.imwrite(str(path), np.stack([blue, green, red, *alpha], axis=2))
    return path


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_16_bit_colour_with_equal_channels_keeps_its_16_bits(name: str, tmp_path: Path) -> None:
    read = read_radiograph(save_deep(tmp_path / name, [RAMP16] * 3)).pixels
    assert read.dtype == np.uint16
    np.testing.assert_array_equal(read, RAMP16)


def test_16_bit_opaque_alpha_is_ignored_and_transparency_refused(tmp_path: Path) -> None:
    alpha = np.full_like(RAMP16, 65_535)
    read = read_radiograph(save_deep(tmp_path / "a.png", [RAMP16] * 3 + [alpha])).pixels
    np.testing.assert_array_equal(read, RAMP16)
    alpha[5, 5] = 65_534
    with pytest.raises(InputError, match=r"transparent.*alpha"):
        read_radiograph(save_deep(tmp_path / "b.png", [RAMP16] * 3 + [alpha]))


def test_16_bit_grey_with_alpha_keeps_its_16_bits(tmp_path: Path) -> None:
    pairs = np.stack([RAMP16, np.full_like(RAMP16, 65_535)], axis=2).astype(">u2")
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 48, 64, 16, 4, 0, 0, 0))
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in pairs))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", data) + chunk(b"IEND", b""))
    np.testing.assert_array_equal(read_radiograph(tmp_path / "a.png").pixels, RAMP16)


def test_16_bit_channels_that_nearly_agree_give_their_luma(tmp_path: Path) -> None:
    wide = RAMP16 // 2 + 10_000
    read = read_radiograph(save_deep(tmp_path / "a.png", [wide + 2000, wide, wide - 2000])).pixels
    expected = wide + (0.299 - 0.114) * 2000
    assert np.abs(read - expected).max() < 1.5


def test_coloured_16_bit_photo_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"colour image \(\d+%"):
        read_radiograph(save_deep(tmp_path / "a.png", [RAMP16, RAMP16[::-1], RAMP16[:, ::-1]]))


def test_damaged_16_bit_colour_is_refused(tmp_path: Path) -> None:
    path = save_deep(tmp_path / "a.png", [RAMP16] * 3)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(InputError, match="damaged"):
        read_radiograph(path)


# EXIF orientation: each puts the same picture on the screen


TURNED = {
    1: RAMP8,
    2: RAMP8[:, ::-1],
    3: RAMP8[::-1, ::-1],
    4: RAMP8[::-1],
    5: RAMP8.T,
    6: np.rot90(RAMP8, 1),
    7: RAMP8[::-1, ::-1].T,
    8: np.rot90(RAMP8, -1),
}
"""What is stored for each orientation, so that RAMP8 is shown."""


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("name", ["a.png", "a.tif"])
def test_a_turned_image_is_read_as_viewers_show_it(name: str, orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    Image.fromarray(np.ascontiguousarray(TURNED[orientation])).save(tmp_path / name, exif=exif)
    np.testing.assert_array_equal(read_radiograph(tmp_path / name).pixels, RAMP8)


def test_a_turned_jpeg_is_read_as_viewers_show_it(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    Image.fromarray(np.ascontiguousarray(np.rot90(SMOOTH8))).save(tmp_path / "a.jpg", quality=95, exif=exif)
    assert np.abs(read_radiograph(tmp_path / "a.jpg").pixels.astype(int) - SMOOTH8).max() <= 6


def test_an_orientation_that_does_not_exist_turns_nothing(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 99
    Image.fromarray(RAMP8).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_radiograph(tmp_path / "a.png").pixels, RAMP8)


def test_turned_16_bit_colour_is_refused_with_a_remedy(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = 6
    content = save_deep(tmp_path / "a.png", [RAMP16] * 3).read_bytes()
    (tmp_path / "a.png").write_bytes(content[:33] + chunk(b"eXIf", exif.tobytes()[6:]) + content[33:])
    with pytest.raises(InputError, match=r"turned image .* export it in grey"):
        read_radiograph(tmp_path / "a.png")


# Damage: PNG and compressed TIFF have checksums; JPEG has none (docs/outputs.md)


def noisy(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (64, 64), np.uint8)


def test_every_flipped_bit_of_a_png_is_found(tmp_path: Path) -> None:
    Image.fromarray(noisy()).save(tmp_path / "a.png")
    content = (tmp_path / "a.png").read_bytes()
    for place in np.random.default_rng(1).integers(41, len(content) - 20, 60):
        damaged = bytearray(content)
        damaged[place] ^= 4
        (tmp_path / "b.png").write_bytes(damaged)
        with pytest.raises(InputError, match="damaged"):
            read_radiograph(tmp_path / "b.png")


def test_a_flipped_bit_of_a_jpeg_is_found_or_gives_pixels_of_the_right_size(tmp_path: Path) -> None:
    Image.fromarray(noisy()).save(tmp_path / "a.jpg")
    content = (tmp_path / "a.jpg").read_bytes()
    shapes = set()
    for place in np.random.default_rng(1).integers(len(content) // 2, len(content) - 2, 60):
        damaged = bytearray(content)
        damaged[place] ^= 4
        (tmp_path / "b.jpg").write_bytes(damaged)
        with suppress(InputError):
            shapes.add(read_radiograph(tmp_path / "b.jpg").shape)
    assert shapes == {(64, 64)}


@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif"])
def test_a_cut_off_file_is_refused(name: str, share: float, tmp_path: Path) -> None:
    Image.fromarray(noisy()).save(tmp_path / name)
    content = (tmp_path / name).read_bytes()
    (tmp_path / name).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(InputError, match="damaged"):
        read_radiograph(tmp_path / name)


@pytest.mark.parametrize("dtype", ["<f8", "<i8"])
def test_tiff_of_64_bit_numbers_is_refused_or_kept(dtype: str, tmp_path: Path) -> None:
    pixels = (RAMP16 / 7).astype(dtype)
    tags = {256: 48, 257: 64, 258: 64, 259: 1, 262: 1, 273: 8, 277: 1, 278: 64, 279: pixels.nbytes, 339: 3}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    start = b"II*\0" + struct.pack("<I", 8 + pixels.nbytes) + pixels.tobytes()
    (tmp_path / "a.tif").write_bytes(start + struct.pack("<H", len(tags)) + entries + bytes(4))
    with pytest.raises(InputError, match="damaged or not supported"):
        read_radiograph(tmp_path / "a.tif")
