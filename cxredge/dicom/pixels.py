"""The stored pixel values of a DICOM image: header checked, decoded, colour turned to grey.

What a header announces is held against the pixel data before anything is allocated or handed to a decoder:
a decoder in C that gets an image of another size than it was promised is how a process dies.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydicom.pixels import apply_color_lut, get_decoder
from pydicom.pixels.utils import pixel_array
from pydicom.uid import JPEG2000TransferSyntaxes, JPEGLSTransferSyntaxes, JPEGTransferSyntaxes

from cxredge.dicom.codestream import frame_header
from cxredge.dicom.file import one_line
from cxredge.dicom.spacing import text
from cxredge.errors import CxredgeError, InputError
from cxredge.limits import require_image_size
from cxredge.radiograph import Polarity
from cxredge.raster import grey_from_channels

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.uid import UID

MONOCHROME: dict[str, Polarity] = {"MONOCHROME1": "MONOCHROME1", "MONOCHROME2": "MONOCHROME2"}
DECODED_AS_RGB = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"})
"""Colour spaces that pydicom gives as RGB."""
PALETTE = "PALETTE COLOR"
OTHER_PIXEL_DATA = {"FloatPixelData": "floating", "DoubleFloatPixelData": "floating"}
RUST_PANIC = "PanicException"
"""What a decoder written in Rust (pylibjpeg-rle) raises on damaged data; it is no :class:`Exception`."""
SAFE_PLUGINS = ("pydicom", "pyjpegls", "pylibjpeg", "pillow")
"""Plug-ins by preference. They raise on damaged data, where an exception of GDCM's ends the process, so that GDCM
is left with what nothing else decodes: lossless JPEG, and JPEG of 12 bits."""
PILLOW_BITS = 8
"""Most bits of a JPEG that Pillow decodes."""
END_OF_IMAGE, SEARCHED_FOR_END = b"\xff\xd9", 32
"""Marker EOI of JPEG and JPEG-LS, and the last bytes of the pixel data in which it stands."""
HAVE_FRAME_HEADERS = frozenset(JPEGTransferSyntaxes + JPEGLSTransferSyntaxes + JPEG2000TransferSyntaxes)
FEWEST_BITS = 8
"""Bits stored of a radiograph; a picture of one bit is a mask or a drawing."""


def stored_pixels(dataset: Dataset) -> tuple[NDArray[Any], Polarity]:
    """Decode the one image of a data set.

    Grey images keep their stored values. Colour images are read where they hold a grey picture, as secondary
    captures do: RGB, YBR and palettes, at most 1 % of whose pixels may be coloured.

    Returns:
        Integers ``(H, W)`` as they are stored, without the bits above Bits Stored, and their polarity.

    Raises:
        InputError: no image, several, one that its header does not fit, a colour image, or a decoder is missing.
    """
    require_one_image(dataset)
    interpretation = text(dataset.get("PhotometricInterpretation"))
    if interpretation in MONOCHROME:
        values = decode(dataset)
        if values.ndim != 2:
            raise InputError(f"is {interpretation} but has {values.shape[-1]} samples a pixel")
        return values, MONOCHROME[interpretation]
    if interpretation not in DECODED_AS_RGB | {PALETTE}:
        named = f"photometric interpretation {interpretation}" if interpretation else "no photometric interpretation"
        raise InputError(f"has {named}, a radiograph is MONOCHROME1 or 2, or grey in RGB, YBR or a palette")
    values = decode(dataset)
    if interpretation == PALETTE:
        rgb = apply_color_lut(values, dataset)
        return grey_from_colour(rgb, 8 * rgb.dtype.itemsize), "MONOCHROME2"
    return grey_from_colour(values, int(dataset.BitsStored)), "MONOCHROME2"


def require_one_image(dataset: Dataset) -> None:
    """Check what the header announces against the pixel data, before either is worked on.

    Raises:
        InputError: no image, several, of an impossible size or depth, or with another number of bytes.
    """
    if "PixelData" not in dataset:
        kind = next((kind for keyword, kind in OTHER_PIXEL_DATA.items() if keyword in dataset), None)
        if kind:
            raise InputError(f"holds {kind} pixels (a parametric map), a radiograph has integers")
        raise InputError("holds no image (no Pixel Data), or is cut off before it")
    frames = header_number(dataset, "NumberOfFrames", 1) or 1  # as pydicom takes a number of 0
    if frames != 1:
        raise InputError(f"holds {frames} frames, a radiograph has one; extract the frame that is meant")
    rows, columns = header_number(dataset, "Rows", 0), header_number(dataset, "Columns", 0)
    require_image_size(rows, columns)
    allocated, stored = header_number(dataset, "BitsAllocated", 0), header_number(dataset, "BitsStored", 0)
    if stored < FEWEST_BITS or allocated < stored:
        raise InputError(f"has {stored} of {allocated} bits a pixel, a radiograph has {FEWEST_BITS} to 16")
    require_length(dataset, rows, columns, allocated)


def header_number(dataset: Dataset, keyword: str, absent: int) -> int:
    """A whole number of the header.

    Raises:
        InputError: it is something else.
    """
    value = dataset.get(keyword)
    try:
        return absent if value is None or value == "" else int(value)
    except (TypeError, ValueError) as error:
        raise InputError(f"is a damaged DICOM file: {keyword} is not one number") from error


def require_length(dataset: Dataset, rows: int, columns: int, allocated: int) -> None:
    """Hold the header against the number of bytes, or against what a compressed frame says of itself.

    Raises:
        InputError: too few bytes, enough for several images, or a frame of another size.
    """
    syntax = transfer_syntax(dataset)
    samples = header_number(dataset, "SamplesPerPixel", 1)
    if syntax.is_encapsulated:
        frame = frame_header(dataset.PixelData)
        if frame is None and syntax in HAVE_FRAME_HEADERS:
            raise InputError(f"is damaged: its compressed image ({syntax.name}) has no valid header")
        if syntax in JPEGLSTransferSyntaxes and END_OF_IMAGE not in dataset.PixelData[-SEARCHED_FOR_END:]:
            raise InputError("is damaged: its compressed image is cut off")  # CharLS would search for seconds
        if frame is not None and (frame.height, frame.width, frame.samples) != (rows, columns, samples):
            raise InputError(
                f"is damaged: header says {columns}x{rows} pixels of {samples} samples, "
                f"the compressed image has {frame.width}x{frame.height} of {frame.samples}"
            )
        if frame is not None and frame.bits > allocated:
            raise InputError(f"is damaged: header says {allocated} bits, the compressed image has {frame.bits}")
        return
    if text(dataset.get("PhotometricInterpretation")) == "YBR_FULL_422":
        samples = 2  # the two chroma samples are shared by two pixels
    needed, present = rows * columns * samples * allocated // 8, len(dataset.PixelData)
    if present < needed:
        raise InputError(
            f"pixels cannot be decoded ({syntax.name}): {present} bytes, {columns}x{rows} pixels need {needed}"
        )
    if present >= 2 * needed:
        raise InputError(f"holds {present} bytes of pixels, one image has {needed}; extract the frame that is meant")


def transfer_syntax(dataset: Dataset) -> UID:
    """The transfer syntax.

    Raises:
        InputError: the data set has none.
    """
    syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
    if not syntax:
        raise InputError("pixels cannot be decoded (unknown transfer syntax): the file names none")
    if syntax.is_private or not syntax.is_transfer_syntax:
        raise InputError(f"pixels cannot be decoded (unknown transfer syntax {syntax}); export it in another one")
    return syntax


def decode(dataset: Dataset) -> NDArray[Any]:
    """Stored values ``(H, W)`` or ``(H, W, 3)`` of the only frame.

    Raises:
        InputError: a decoder is missing, which is named, or the pixels are damaged.
    """
    syntax = transfer_syntax(dataset)
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise InputError(f"pixels cannot be decoded ({syntax.name}): pydicom has no decoder for it") from error
    if not decoder.is_available:
        raise InputError(f"pixels cannot be decoded ({syntax.name}): {needed_plugins(decoder.missing_dependencies)}")
    high_bit, plugin = shifted_high_bit(dataset), safe_plugin(decoder.available_plugins, dataset)
    try:
        if high_bit is None:
            return np.asarray(pixel_array(dataset, index=0, decoding_plugin=plugin))
        pixels = pixel_array(dataset, index=0, decoding_plugin=plugin, correct_unused_bits=False)
        return shifted(np.asarray(pixels), dataset, high_bit)
    except CxredgeError:
        raise
    except Exception as error:  # decoders raise many types
        reason = one_line(error)
        if "not support" in reason and decoder.missing_dependencies:
            reason = needed_plugins(decoder.missing_dependencies)
        raise InputError(f"pixels cannot be decoded ({syntax.name}): {reason}") from error
    except BaseException as error:
        if type(error).__name__ != RUST_PANIC:
            raise
        raise InputError(f"pixels cannot be decoded ({syntax.name}): its decoder failed") from error


def safe_plugin(available: Collection[str], dataset: Dataset) -> str:
    """The plug-in of pydicom that decodes a data set, by :data:`SAFE_PLUGINS`; empty for whichever there is."""
    header = frame_header(dataset.PixelData)
    deep_jpeg = header is not None and header.bits > PILLOW_BITS
    usable = [name for name in SAFE_PLUGINS if name in available and not (name == "pillow" and deep_jpeg)]
    return usable[0] if usable else ""


def needed_plugins(missing: list[str]) -> str:
    """What to install, from pydicom's lines ``name - requires package>=version and package>=version``."""
    choices = []
    for line in missing:
        names = re.findall(r"[A-Za-z][\w-]*(?=>=)", line.partition(" requires ")[2])
        choices.append("pip install " + " ".join(names))
    return "a plug-in of pydicom is missing: " + ", or ".join(choices)


def shifted_high_bit(dataset: Dataset) -> int | None:
    """High Bit where the value does not lie in the lowest bits of its word, as old files have it, else ``None``."""
    stored, allocated = int(dataset.BitsStored), int(dataset.BitsAllocated)
    high_bit = header_number(dataset, "HighBit", stored - 1)
    return high_bit if stored <= high_bit < allocated else None


def shifted(words: NDArray[Any], dataset: Dataset, high_bit: int) -> NDArray[Any]:
    """Move the stored bits of ``words`` down to bit 0; the sign follows, other bits are lost.

    A header whose High Bit is wrong is told by words that have nothing in the upper bits, but something
    below the stored ones.
    """
    stored, allocated = int(dataset.BitsStored), int(dataset.BitsAllocated)
    unused = high_bit + 1 - stored
    unsigned = words.view(words.dtype.str.replace("i", "u"))
    if int(unsigned.max()) < 1 << stored and (unsigned & ((1 << unused) - 1)).any():
        return words
    return np.asarray((words << (allocated - 1 - high_bit)) >> (allocated - stored))


def grey_from_colour(rgb: NDArray[Any], bits: int) -> NDArray[Any]:
    """Grey ``(H, W)`` of colour ``(H, W, 3)`` whose channels agree, at 8 or 16 bits.

    Raises:
        InputError: a colour image.
    """
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype.kind != "u":
        raise InputError("has colours that are not three unsigned channels, a radiograph is grey")
    if rgb.dtype != np.uint8:
        rgb = (rgb << (16 - bits) if bits <= 16 else rgb >> (bits - 16)).astype(np.uint16)
    return grey_from_channels(rgb[..., 0], rgb[..., 1], rgb[..., 2])
