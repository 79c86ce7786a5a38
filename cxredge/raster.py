"""PNG, JPEG, TIFF and NPY files as :class:`~cxredge.radiograph.Radiograph`.

Bit depth is kept: a 16-bit file gives 16-bit pixels. Colour files are accepted only where they
hold a grey image (all channels alike), as many exports do. An image that says it has to be turned
(EXIF orientation) is turned, as every viewer does. Only Pillow's readers of these formats are used,
and directly: cxredge has its own limit of size and leaves Pillow's, which is the host's, alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import jpeg_factory
from PIL.PngImagePlugin import PngImageFile
from PIL.TiffImagePlugin import TiffImageFile

from cxredge.errors import CxredgeError, InputError, one_line
from cxredge.libraries.open_cv import cv2
from cxredge.limits import LimitError, require_image_size
from cxredge.radiograph import Polarity, Radiograph, require_finite

T = TypeVar("T", np.uint8, np.uint16)

GREY_SPREAD = 16
"""Largest difference between the channels of a pixel that still counts as grey (8-bit steps; JPEG chroma noise)."""
COLOURED_SHARE = 0.01
"""Share of pixels that may be coloured (a marker, a stamp) in an image that still counts as grey."""

NO_MEMORY = "is too large for this machine's memory"
TRANSPARENT = "has transparent pixels; export it without an alpha channel"

TIFF_PHOTOMETRIC = 262
"""TIFF tag PhotometricInterpretation (TIFF 6.0, section 4)."""
WHITE_IS_ZERO = 0
GREY_MODES = {"1", "L", "I", "I;16", "I;16L", "I;16B", "F"}
READERS: dict[bytes, Callable[[BinaryIO], Image.Image]] = {
    b"\x89PNG": PngImageFile,
    b"\xff\xd8\xff": jpeg_factory,
    **dict.fromkeys((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"), TiffImageFile),
}
"""Pillow's readers by the first bytes of a file."""

ORIENTATION = 274
"""EXIF tag Orientation (TIFF 6.0, section 8): where the first row and column are shown."""
TURNS: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: np.fliplr,
    3: lambda pixels: np.rot90(pixels, 2),
    4: np.flipud,
    5: np.transpose,
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels, 2).T,
    8: np.rot90,
}
"""How the pixels of each orientation but 1 are turned upright."""


def read_raster(path: Path) -> Radiograph:
    """Read a PNG, JPEG or TIFF file.

    Raises:
        InputError: not an image, damaged, too large, several pages, partly transparent, or a colour image.
    """
    try:
        with path.open("rb") as file, open_image(file) as image:
            return _radiograph(image, path)
    except CxredgeError:
        raise
    except LimitError as error:
        raise InputError(str(error)) from error
    except MemoryError as error:
        raise InputError(NO_MEMORY) from error
    except Exception as error:  # Pillow's plug-ins raise many types on damaged files
        raise InputError(f"is damaged or not supported: {one_line(error)}") from error


def open_image(file: BinaryIO) -> Image.Image:
    """Read an image's header with the reader that its first bytes ask for.

    Raises:
        InputError: it is none of the formats.
    """
    head = file.read(max(map(len, READERS)))
    file.seek(0)
    for magic, reader in READERS.items():
        if head.startswith(magic):
            return reader(file)
    raise InputError("is not an image that can be read (PNG, JPEG, TIFF, NPY or DICOM)")


def _radiograph(image: Image.Image, path: Path) -> Radiograph:
    """The radiograph in an opened image, which is decoded only where its header promises one."""
    width, height = image.size
    require_image_size(height, width)
    if getattr(image, "is_animated", False):  # asking a TIFF for their number means to read them all
        raise InputError("holds several pages or frames, one radiograph is expected")
    deep = is_deep_colour(image)
    if deep and image.getexif().get(ORIENTATION, 1) != 1:
        raise InputError("is a turned image (EXIF orientation) in 16-bit colour; export it in grey")
    image.load()
    pixels = grey_from_deep_colour(path, (height, width)) if deep else grey_pixels(image)
    return Radiograph(require_finite(upright(image, pixels)), tiff_polarity(image))


def upright(image: Image.Image, pixels: NDArray[Any]) -> NDArray[Any]:
    """``pixels`` turned as the file's EXIF orientation says; Pillow turns TIFFs itself and takes their tag away."""
    turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))


def tiff_polarity(image: Image.Image) -> Polarity:
    """Polarity of the pixels that Pillow gives: it turns 8-bit WhiteIsZero TIFFs itself, deeper ones not."""
    tags = getattr(image, "tag_v2", {})
    deep = image.mode in GREY_MODES - {"1", "L"}
    return "MONOCHROME1" if deep and tags.get(TIFF_PHOTOMETRIC) == WHITE_IS_ZERO else "MONOCHROME2"


def grey_pixels(image: Image.Image) -> NDArray[Any]:
    """Pixels ``(H, W)`` of a grey image in any of Pillow's modes, at its own bit depth."""
    if image.mode in GREY_MODES:
        pixels = np.asarray(image)
        return pixels.astype(np.uint8) * 255 if pixels.dtype == bool else pixels
    if image.mode == "P" and "transparency" not in image.info:
        return grey_from_palette(image)
    if image.mode in {"LA", "PA", "RGBA", "RGBa", "La"} or "transparency" in image.info:
        rgba = np.asarray(image.convert("RGBA"))
        if rgba[..., 3].min() < 255:
            raise InputError(TRANSPARENT)
        return grey_from_rgb(rgba[..., :3])
    return grey_from_rgb(np.asarray(image.convert("RGB")))


def is_deep_colour(image: Image.Image) -> bool:
    """Whether an image that is not loaded yet has channels of 16 bits, of which Pillow would keep 8."""
    return image.mode not in GREY_MODES and any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def grey_from_deep_colour(path: Path, shape: tuple[int, int]) -> NDArray[np.uint16]:
    """Grey ``(H, W)`` of a PNG or TIFF with 16-bit channels that Pillow has found undamaged, at 16 bits."""
    content = np.frombuffer(path.read_bytes(), np.uint8)
    pixels = cv2.imdecode(content, cv2.IMREAD_UNCHANGED)
    if pixels is None or pixels.dtype != np.uint16 or pixels.shape[:2] != shape or pixels.shape[2:] not in ((3,), (4,)):
        raise InputError("has 16-bit colour of a kind that is not supported; export it in grey")
    if pixels.shape[2] == 4 and pixels[..., 3].min() < np.iinfo(np.uint16).max:
        raise InputError(TRANSPARENT)
    blue, green, red = (np.asarray(pixels[..., channel], np.uint16) for channel in range(3))
    return grey_from_channels(red, green, blue)


def grey_from_palette(image: Image.Image) -> NDArray[np.uint8]:
    """Grey ``(H, W)`` of a palette image: colours are checked once an entry, weighted by their use."""
    indices = np.asarray(image)
    palette = np.asarray(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    if indices.max() >= len(palette):
        raise InputError("is damaged: it uses colours that its palette lacks")
    uses = np.asarray(image.histogram()[: len(palette)])
    spread = palette.max(axis=1) - palette.min(axis=1)
    require_grey(float(uses[spread > GREY_SPREAD].sum() / indices.size))
    grey = np.zeros(256, np.uint8)
    grey[: len(palette)] = np.asarray(Image.fromarray(palette[None]).convert("L"))[0]
    return np.asarray(cv2.LUT(indices, grey), np.uint8)


def grey_from_rgb(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey ``(H, W)`` of an RGB image ``(H, W, 3)`` whose channels agree.

    Raises:
        InputError: more than 1 % of the pixels are coloured.
    """
    return grey_from_channels(rgb[..., 0], rgb[..., 1], rgb[..., 2])


def grey_from_channels(red: NDArray[T], green: NDArray[T], blue: NDArray[T]) -> NDArray[T]:
    """Grey ``(H, W)`` of three channels ``(H, W)`` of 8 or 16 bits that agree; luma where they do not quite.

    Raises:
        InputError: more than 1 % of the pixels are coloured.
    """
    lightest = np.maximum(np.maximum(red, green), blue)
    spread = lightest - np.minimum(np.minimum(red, green), blue)
    if not spread.any():
        return lightest
    require_grey(float((spread > GREY_SPREAD * (np.iinfo(red.dtype).max // 255)).mean()))
    rgb = np.stack([red, green, blue], axis=2)
    if red.dtype == np.uint8:
        return np.asarray(Image.fromarray(rgb).convert("L"), red.dtype)
    return np.asarray(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY), red.dtype)


def require_grey(coloured_share: float) -> None:
    """Raise :class:`InputError` where more than 1 % of an image's pixels are coloured."""
    if coloured_share > COLOURED_SHARE:
        raise InputError(f"is a colour image ({coloured_share:.0%} of the pixels), a radiograph is grey")


def read_npy(path: Path) -> Radiograph:
    """Read a two-dimensional NPY array; pickled objects are refused.

    Raises:
        InputError: damaged, pickled, too large, or not a two-dimensional array of numbers.
    """
    try:
        require_npy_header(path)
        pixels = np.load(path, allow_pickle=False)
    except CxredgeError:
        raise
    except LimitError as error:
        raise InputError(str(error)) from error
    except MemoryError as error:
        raise InputError(NO_MEMORY) from error
    except Exception as error:  # a damaged header raises many types
        raise InputError(f"is not an NPY array that can be read: {one_line(error)}") from error
    return Radiograph(require_finite(pixels))


def require_npy_header(path: Path) -> None:
    """Check what the header of an NPY file promises, against the file's length too, before memory is taken for it."""
    promised = np.load(path, mmap_mode="r", allow_pickle=False)
    if promised.ndim != 2 or promised.dtype.kind not in "uif":
        raise InputError(f"holds {promised.dtype} {promised.shape}, a radiograph is a two-dimensional array of numbers")
    require_image_size(*promised.shape)
