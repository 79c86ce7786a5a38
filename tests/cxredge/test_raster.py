"""PNG, JPEG, TIFF and NPY: what is kept, what is grey enough, what is refused."""

from __future__ import annotations

import io
import pickle
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cxredge import read_radiograph
from cxredge.errors import InputError

RAMP8 = (np.arange(64 * 48).reshape(64, 48) % 251).astype(np.uint8)
RAMP16 = (np.arange(64 * 48).reshape(64, 48) * 21).astype(np.uint16)


def save(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def rgb(red: np.ndarray, green: np.ndarray, blue: np.ndarray) -> Image.Image:
    return Image.fromarray(np.stack([red, green, blue], axis=2))


def photo() -> Image.Image:
    """A sunset: every pixel is coloured."""
    row, column = np.mgrid[:64, :48]
    return rgb(*(np.asarray(c % 256, np.uint8) for c in (200 + row % 50, 80 + column, 20 + row)))


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG file."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


# PNG


@pytest.mark.parametrize("pixels", [RAMP8, RAMP16], ids=["8 bits", "16 bits"])
def test_png_keeps_its_values_and_bit_depth(pixels: np.ndarray, tmp_path: Path) -> None:
    read = read_radiograph(save(Image.fromarray(pixels), tmp_path / "a.png"))
    np.testing.assert_array_equal(read.pixels, pixels)
    assert read.pixels.dtype == pixels.dtype
    assert read.polarity == "MONOCHROME2"


def test_one_bit_png_is_black_and_white(tmp_path: Path) -> None:
    read = read_radiograph(save(Image.fromarray(RAMP8 > 100), tmp_path / "a.png")).pixels
    np.testing.assert_array_equal(read, np.where(RAMP8 > 100, 255, 0))


def test_grey_palette_gives_the_grey_levels_not_the_indices(tmp_path: Path) -> None:
    image = Image.fromarray(RAMP8 % 4, "P")
    image.putpalette([level for grey in (200, 40, 90, 130) for level in (grey, grey, grey)])
    read = read_radiograph(save(image, tmp_path / "a.png")).pixels
    np.testing.assert_array_equal(read, np.array([200, 40, 90, 130])[RAMP8 % 4])


def test_palette_shorter_than_its_depth_is_read(tmp_path: Path) -> None:
    image = Image.fromarray(RAMP8 % 3, "P")
    image.putpalette([0, 0, 0, 120, 120, 120, 255, 255, 255])
    read = read_radiograph(save(image, tmp_path / "a.png", bits=8)).pixels
    np.testing.assert_array_equal(read, np.array([0, 120, 255])[RAMP8 % 3])


def test_index_beyond_the_palette_is_not_a_crash(tmp_path: Path) -> None:
    indices = np.full((64, 48), 7, np.uint8)
    indices[:, :24] = 1
    rows = b"".join(b"\0" + row.tobytes() for row in indices)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 48, 64, 8, 3, 0, 0, 0)) + chunk(b"PLTE", bytes(3) + b"\xff" * 3)
    data = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + data)
    with suppress(InputError):
        assert read_radiograph(tmp_path / "a.png").shape == (64, 48)


def test_unused_colours_in_a_palette_do_not_matter(tmp_path: Path) -> None:
    image = Image.fromarray(RAMP8 % 2, "P")
    image.putpalette([0, 0, 0, 255, 255, 255, 255, 0, 0])
    assert set(np.unique(read_radiograph(save(image, tmp_path / "a.png", bits=8)).pixels)) == {0, 255}


def test_coloured_palette_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="colour"):
        read_radiograph(save(photo().quantize(16), tmp_path / "a.png"))


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_opaque_alpha_channel_is_ignored(mode: str, tmp_path: Path) -> None:
    read = read_radiograph(save(Image.fromarray(RAMP8).convert(mode), tmp_path / "a.png"))
    np.testing.assert_array_equal(read.pixels, RAMP8)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
def test_transparent_pixels_are_refused_with_a_remedy(mode: str, tmp_path: Path) -> None:
    image = Image.fromarray(RAMP8).convert(mode)
    alpha = Image.new("L", image.size, 255)
    alpha.putpixel((3, 5), 0)
    image.putalpha(alpha)
    with pytest.raises(InputError, match=r"transparent.*alpha"):
        read_radiograph(save(image, tmp_path / "a.png"))


def test_transparent_palette_entry_is_refused(tmp_path: Path) -> None:
    image = Image.fromarray(RAMP8 % 2, "P")
    image.putpalette([0, 0, 0, 255, 255, 255])
    with pytest.raises(InputError, match="transparent"):
        read_radiograph(save(image, tmp_path / "a.png", transparency=1))


def test_rgb_with_equal_channels_is_grey(tmp_path: Path) -> None:
    read = read_radiograph(save(rgb(RAMP8, RAMP8, RAMP8), tmp_path / "a.png"))
    np.testing.assert_array_equal(read.pixels, RAMP8)


def test_small_coloured_marker_is_tolerated(tmp_path: Path) -> None:
    red = RAMP8.copy()
    red[:5, :6] = 255  # 30 of 3072 pixels, under 1 %
    marked = rgb(red, np.where(red == 255, 0, RAMP8), np.where(red == 255, 0, RAMP8))
    read = read_radiograph(save(marked, tmp_path / "a.png")).pixels
    np.testing.assert_array_equal(read[6:], RAMP8[6:])


def test_just_over_one_percent_of_colour_is_refused(tmp_path: Path) -> None:
    red, rest = RAMP8.copy(), RAMP8.copy()
    red[:6, :6], rest[:6, :6] = 255, 0  # 36 of 3072 pixels
    with pytest.raises(InputError, match="colour image"):
        read_radiograph(save(rgb(red, rest, rest), tmp_path / "a.png"))


def test_colour_photo_is_refused(tmp_path: Path) -> None:
    for name in ("a.png", "a.jpg", "a.tif"):
        with pytest.raises(InputError, match=r"colour image \(\d+% of the pixels\)"):
            read_radiograph(save(photo(), tmp_path / name))


def test_truncated_png_is_refused_as_damaged(tmp_path: Path) -> None:
    path = save(Image.fromarray(RAMP16), tmp_path / "a.png")
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(InputError, match="damaged"):
        read_radiograph(path)


def test_header_that_promises_a_decompression_bomb_is_refused_unread(tmp_path: Path) -> None:
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    with pytest.raises(InputError, match="bomb"):
        read_radiograph(tmp_path / "bomb.png")


def test_one_pixel_image_is_refused_as_too_small(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="1x1 pixels is too small"):
        read_radiograph(save(Image.new("L", (1, 1)), tmp_path / "a.png"))


def test_animated_png_is_refused(tmp_path: Path) -> None:
    frames = [Image.fromarray(RAMP8), Image.fromarray(255 - RAMP8)]
    frames[0].save(tmp_path / "a.png", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="several pages"):
        read_radiograph(tmp_path / "a.png")


# JPEG


def test_grey_jpeg_is_read_within_its_compression_error(tmp_path: Path) -> None:
    smooth = np.tile(np.arange(48, dtype=np.uint8) * 4, (64, 1))
    read = read_radiograph(save(Image.fromarray(smooth), tmp_path / "a.jpg", quality=95)).pixels
    assert read.dtype == np.uint8
    assert np.abs(read.astype(int) - smooth).max() <= 6


def test_rgb_jpeg_with_chroma_noise_still_counts_as_grey(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    noise = rng.integers(-4, 5, (64, 48, 3))
    noisy = np.clip(RAMP8[..., None].astype(int) + noise, 0, 255).astype(np.uint8)
    read = read_radiograph(save(Image.fromarray(noisy), tmp_path / "a.jpg", quality=95))
    assert np.abs(read.pixels.astype(int) - RAMP8).mean() < 8


def test_cmyk_jpeg_of_a_grey_image_is_read_and_of_a_photo_refused(tmp_path: Path) -> None:
    smooth = np.tile(np.arange(48, dtype=np.uint8) * 4, (64, 1))
    grey = rgb(smooth, smooth, smooth).convert("CMYK")
    read = read_radiograph(save(grey, tmp_path / "a.jpg", quality=95)).pixels
    assert np.corrcoef(read.ravel(), smooth.ravel())[0, 1] > 0.99
    with pytest.raises(InputError, match="colour"):
        read_radiograph(save(photo().convert("CMYK"), tmp_path / "b.jpg"))


def test_truncated_jpeg_is_refused_as_damaged(tmp_path: Path) -> None:
    path = save(Image.fromarray(np.random.default_rng(0).integers(0, 255, (200, 200), np.uint8)), tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(InputError, match="damaged"):
        read_radiograph(path)


# TIFF


@pytest.mark.parametrize(
    "pixels",
    [RAMP8, RAMP16, RAMP16.astype(np.int32) - 9000, (RAMP16 / 7).astype(np.float32)],
    ids=lambda p: str(p.dtype),
)
def test_tiff_keeps_its_values(pixels: np.ndarray, tmp_path: Path) -> None:
    read = read_radiograph(save(Image.fromarray(pixels), tmp_path / "a.tif")).pixels
    np.testing.assert_array_equal(read, pixels)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_tiff_keeps_its_values(compression: str, tmp_path: Path) -> None:
    read = read_radiograph(save(Image.fromarray(RAMP16), tmp_path / "a.tif", compression=compression)).pixels
    np.testing.assert_array_equal(read, RAMP16)


def test_big_endian_tiff_keeps_its_values(tmp_path: Path) -> None:
    path = tmp_path / "a.tif"
    path.write_bytes(tiff(RAMP16.astype(">u2"), white_is_zero=False))
    np.testing.assert_array_equal(read_radiograph(path).pixels, RAMP16)


@pytest.mark.parametrize("pixels", [RAMP8, RAMP16.astype("<u2")], ids=["8 bits", "16 bits"])
def test_white_is_zero_tiff_shows_its_largest_value_black(pixels: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "film.tif").write_bytes(tiff(pixels, white_is_zero=True))
    read = read_radiograph(tmp_path / "film.tif")
    shown = read.pixels.astype(int) if read.polarity == "MONOCHROME2" else -read.pixels.astype(int)
    np.testing.assert_array_equal(shown - shown.min(), int(pixels.max()) - pixels.astype(int))


def test_tiff_of_several_pages_is_refused(tmp_path: Path) -> None:
    pages = [Image.fromarray(RAMP8) for _ in range(3)]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match="several pages"):
        read_radiograph(tmp_path / "a.tif")


def test_float_tiff_with_nan_is_refused(tmp_path: Path) -> None:
    pixels = (RAMP16 / 7).astype(np.float32)
    pixels[0, 0] = np.nan
    with pytest.raises(InputError, match="NaN"):
        read_radiograph(save(Image.fromarray(pixels), tmp_path / "a.tif"))


def tiff(pixels: np.ndarray, white_is_zero: bool) -> bytes:
    """An uncompressed TIFF file of ``(H, W)`` pixels, in their own byte order (big-endian for bytes)."""
    order = ">" if pixels.dtype.byteorder in ">|" else "<"
    height, width = pixels.shape
    tags = {
        256: width,
        257: height,
        258: 8 * pixels.dtype.itemsize,
        259: 1,
        262: 0 if white_is_zero else 1,
        273: 8,
        277: 1,
        278: height,
        279: pixels.nbytes,
    }
    entries = b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in tags.items())
    directory = struct.pack(order + "H", len(tags)) + entries + struct.pack(order + "I", 0)
    magic = b"MM\x00\x2a" if order == ">" else b"II\x2a\x00"
    return magic + struct.pack(order + "I", 8 + pixels.nbytes) + pixels.tobytes() + directory


# NPY


@pytest.mark.parametrize("dtype", ["u1", "<u2", ">u2", "i2", "i4", "u8", "i8", "f2", "f4", "f8"])
def test_npy_keeps_its_values(dtype: str, tmp_path: Path) -> None:
    pixels = (RAMP8 // 2).astype(dtype)
    np.save(tmp_path / "a.npy", pixels)
    read = read_radiograph(tmp_path / "a.npy").pixels
    np.testing.assert_array_equal(read, pixels)


def test_fortran_ordered_npy_is_not_transposed(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.asfortranarray(RAMP16))
    np.testing.assert_array_equal(read_radiograph(tmp_path / "a.npy").pixels, RAMP16)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((64, 64, 3), np.uint8),
        np.zeros(64),
        np.zeros((64, 64), bool),
        np.zeros((64, 64), complex),
        np.zeros((64, 64), "U2"),
        np.full((64, 64), np.nan),
    ],
    ids=["3-D", "1-D", "bool", "complex", "text", "NaN"],
)
def test_npy_that_is_no_radiograph_is_refused(array: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError):
        read_radiograph(tmp_path / "a.npy")


class Bomb:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (Path("exploded"),)


def test_pickled_npy_is_refused_and_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save(tmp_path / "a.npy", np.array([[Bomb()] * 40] * 40), allow_pickle=True)
    with pytest.raises(InputError, match="NPY"):
        read_radiograph(tmp_path / "a.npy")
    (tmp_path / "b.npy").write_bytes(pickle.dumps(Bomb()))
    with pytest.raises(InputError):
        read_radiograph(tmp_path / "b.npy")
    assert not (tmp_path / "exploded").exists()


def npy_with_header(header: str) -> bytes:
    text = header.encode() + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '<u2', 'fortran_order': False, 'shape': (1000000, 1000000), }",
        "{'descr': '<u2', 'fortran_order': False, 'shape': (-64, 64), }",
        "{'descr': '<u2', 'fortran_order': False, 'shape': (64, 64",
        "{'descr': 'nonsense', 'fortran_order': False, 'shape': (64, 64), }",
        "((((((((",
        "",
    ],
    ids=["enormous", "negative", "unclosed", "unknown type", "brackets", "empty"],
)
def test_npy_with_a_false_header_is_refused(header: str, tmp_path: Path) -> None:
    (tmp_path / "a.npy").write_bytes(npy_with_header(header) + bytes(100))
    with pytest.raises(InputError):
        read_radiograph(tmp_path / "a.npy")


def test_truncated_npy_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.save(buffer, RAMP16)
    (tmp_path / "a.npy").write_bytes(buffer.getvalue()[:-100])
    with pytest.raises(InputError):
        read_radiograph(tmp_path / "a.npy")
