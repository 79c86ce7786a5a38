"""PNG, JPEG, TIFF and NPY files as :class:`~cxredge.radiograph.Radiograph`.

Bit depth is kept: a 16-bit file gives 16-bit pixels. Colour files are accepted only where they
hold a grey image (all channels alike), as many exports do.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from cxredge.errors import CxredgeError, InputError
from cxredge.radiograph import Polarity, Radiograph, require_finite

GREY_SPREAD = 16
"""Largest difference between the channels of a pixel that still counts as grey (8-bit steps; JPEG chroma noise)."""
COLOURED_SHARE = 0.01
"""Share of pixels that may be coloured (a marker, a stamp) in an image that still counts as grey."""

TIFF_PHOTOMETRIC = 262
"""TIFF tag PhotometricInterpretation (TIFF 6.0, section 4)."""
WHITE_IS_ZERO = 0
GREY_MODES = {"1", "L", "I", "I;16", "I;16L", "I;16B", "F"}


def read_raster(path: Path) -> Radiograph:
    """Read a PNG, JPEG or TIFF file.

    Raises:
        InputError: not an image, damaged, several pages, partly transparent, or a colour image.
    """
    try:
        with Image.open(path) as image:
            frames = getattr(image, "n_frames", 1)
            if frames > 1:
                raise InputError(f"holds {frames} pages, one radiograph is expected")
            image.load()
            return Radiograph(require_finite(grey_pixels(image)), tiff_polarity(image))
    except CxredgeError:
        raise
    except UnidentifiedImageError as error:
        raise InputError("is not an image that can be read (PNG, JPEG, TIFF, NPY or DICOM)") from error
    except Exception as error:  # Pillow's plug-ins raise many types on damaged files
        raise InputError(f"is damaged or not supported: {error}") from error


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
            raise InputError("has transparent pixels; export it without an alpha channel")
        return grey_from_rgb(rgba[..., :3])
    return grey_from_rgb(np.asarray(image.convert("RGB")))


def grey_from_palette(image: Image.Image) -> NDArray[np.uint8]:
    """Grey ``(H, W)`` of a palette image: colours are checked once an entry, weighted by their use."""
    indices = np.asarray(image)
    palette = np.asarray(image.getpalette("RGB"), np.uint8).reshape(-1, 3)
    if indices.max() >= len(palette):
        raise InputError("is damaged: it uses colours that its palette lacks")
    uses = np.bincount(indices.ravel(), minlength=len(palette))[: len(palette)]
    spread = palette.max(axis=1) - palette.min(axis=1)
    require_grey(float(uses[spread > GREY_SPREAD].sum() / indices.size))
    grey = np.asarray(Image.fromarray(palette[None]).convert("L"))[0]
    return np.take(grey, indices)


def grey_from_rgb(rgb: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Grey ``(H, W)`` of an RGB image ``(H, W, 3)`` whose channels agree.

    Raises:
        InputError: more than 1 % of the pixels are coloured.
    """
    spread = rgb.max(axis=2) - rgb.min(axis=2)
    if not spread.any():
        return np.ascontiguousarray(rgb[..., 0])
    require_grey(float((spread > GREY_SPREAD).mean()))
    return np.asarray(Image.fromarray(rgb).convert("L"))


def require_grey(coloured_share: float) -> None:
    """Raise :class:`InputError` where more than 1 % of an image's pixels are coloured."""
    if coloured_share > COLOURED_SHARE:
        raise InputError(f"is a colour image ({coloured_share:.0%} of the pixels), a radiograph is grey")


def read_npy(path: Path) -> Radiograph:
    """Read a two-dimensional NPY array; pickled objects are refused.

    Raises:
        InputError: damaged, pickled, or not a two-dimensional array of numbers.
    """
    try:
        pixels = np.load(path, allow_pickle=False)
    except Exception as error:  # a damaged header raises many types
        raise InputError(f"is not an NPY array that can be read: {error}") from error
    return Radiograph(require_finite(pixels))
