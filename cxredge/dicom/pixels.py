"""The stored pixel values of a DICOM image: decoded, where layout and frame hold, and colour turned to grey."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_color_lut, get_decoder
from pydicom.uid import JPEGExtended12Bit

from cxredge.dicom.codestream import FrameHeader, frame_header, without_jfif
from cxredge.dicom.deep_jpeg import decode_deep_jpeg
from cxredge.dicom.frame import only_frame, require_frame
from cxredge.dicom.layout import PixelLayout, pixel_layout
from cxredge.errors import InputError, one_line
from cxredge.radiograph import Polarity
from cxredge.raster import grey_from_channels

if TYPE_CHECKING:
    from pydicom.dataset import Dataset
    from pydicom.pixels.decoders.base import Decoder
    from pydicom.uid import UID

MONOCHROME: dict[str, Polarity] = {"MONOCHROME1": "MONOCHROME1", "MONOCHROME2": "MONOCHROME2"}
DECODED_AS_RGB = frozenset({"RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT"})
"""Colour spaces that pydicom gives as RGB."""
COLOUR_SPACE = re.compile(r"(MONOCHROME|A?RGB|YBR|XYB|HSV|CMYK|PALETTE)[A-Z0-9_ ]*")
"""What a message may repeat; anything else of a damaged file may name a patient."""
PALETTE = "PALETTE COLOR"
RUST_PANIC = "PanicException"
"""What a decoder written in Rust (pylibjpeg-rle) raises on damaged data; it is no :class:`Exception`."""
GDCM, PILLOW = "gdcm", "pillow"
SAFE_PLUGINS = ("pydicom", "pyjpegls", "pylibjpeg", PILLOW)
"""Plug-ins by preference. They raise on damaged data, where an exception of GDCM's ends the process, so that GDCM
is left with what nothing else decodes: lossless JPEG, and JPEG of 12 bits."""
PILLOW_BITS = 8
"""Bits of a JPEG that Pillow decodes, whatever the header says; some vendors give 8 bits the words of 16."""


def stored_pixels(dataset: Dataset) -> tuple[NDArray[Any], Polarity]:
    """Decode the one image of a data set.

    Grey images keep their stored values. Colour images are read where they hold a grey picture, as secondary
    captures do: RGB, YBR and palettes, at most 1 % of whose pixels may be coloured.

    Returns:
        Integers ``(H, W)`` as they are stored, without the bits above Bits Stored, and their polarity.

    Raises:
        InputError: no image, several, one that its header does not fit, a colour image, or a decoder is missing.
    """
    layout = pixel_layout(dataset)
    interpretation = layout.interpretation
    if interpretation in MONOCHROME:
        values = decode(dataset, layout)
        if values.ndim != 2:
            raise InputError(f"is {interpretation} but has {values.shape[-1]} samples a pixel")
        return values, MONOCHROME[interpretation]
    if interpretation not in DECODED_AS_RGB | {PALETTE}:
        named = f"photometric interpretation {interpretation}" if interpretation else "no photometric interpretation"
        if interpretation and not COLOUR_SPACE.fullmatch(interpretation):
            named = "a photometric interpretation that is none"
        raise InputError(f"has {named}, a radiograph is MONOCHROME1 or 2, or grey in RGB, YBR or a palette")
    values = decode(dataset, layout)
    if interpretation == PALETTE:
        return grey_from_palette(values, dataset), "MONOCHROME2"
    return grey_from_colour(values, layout.stored), "MONOCHROME2"


def decode(dataset: Dataset, layout: PixelLayout) -> NDArray[Any]:
    """Stored values ``(H, W)`` or ``(H, W, 3)`` of the only frame.

    Raises:
        InputError: the pixel data is not what the header says, a decoder is missing, which is named, or it fails.
    """
    syntax = transfer_syntax(dataset)
    header: FrameHeader | None = None
    content = dataset.PixelData
    if syntax.is_encapsulated:
        content = only_frame(dataset, syntax)
        header = frame_header(content)
        require_frame(content, header, layout, syntax)
    else:
        require_length(content, layout, syntax)
    decoder = available_decoder(syntax)
    plugin = safe_plugin(decoder.available_plugins, header)
    if is_deep_jpeg(header, layout, syntax) and GDCM in decoder.available_plugins:
        return decode_deep_jpeg(without_jfif(content), layout.rows, layout.columns)
    if plugin == PILLOW:
        layout = replace(layout, allocated=PILLOW_BITS, stored=PILLOW_BITS, high_bit=PILLOW_BITS - 1)
        layout = replace(layout, signed=False)  # whatever the header says: a JPEG has no signed samples (T.81)
    if syntax.is_encapsulated:
        content = encapsulate([content if plugin else without_jfif(content)], has_bot=False)
    shifted_up = layout.stored <= layout.high_bit < layout.allocated
    try:
        values, _ = decoder.as_array(
            content, index=0, decoding_plugin=plugin, correct_unused_bits=not shifted_up, **options(dataset, layout)
        )
    except Exception as error:  # decoders raise many types
        reason = one_line(error)
        if "not support" in reason and decoder.missing_dependencies:
            reason = needed_plugins(decoder.missing_dependencies)
        raise InputError(f"pixels cannot be decoded ({syntax.name}): {reason}") from error
    except BaseException as error:
        if type(error).__name__ != RUST_PANIC:
            raise
        raise InputError(f"pixels cannot be decoded ({syntax.name}): its decoder failed") from error
    return shifted(np.asarray(values), layout) if shifted_up else np.asarray(values)


def transfer_syntax(dataset: Dataset) -> UID:
    """The transfer syntax.

    Raises:
        InputError: the data set has none.
    """
    syntax = getattr(getattr(dataset, "file_meta", None), "TransferSyntaxUID", None)
    if not syntax:
        raise InputError("pixels cannot be decoded (unknown transfer syntax): the file names none")
    if not syntax.is_valid:  # it may be anything of the file, and name a patient
        raise InputError("is a damaged DICOM file: its transfer syntax is no UID")
    if syntax.is_private or not syntax.is_transfer_syntax:
        raise InputError(f"pixels cannot be decoded (unknown transfer syntax {syntax}); export it in another one")
    return syntax


def require_length(content: bytes, layout: PixelLayout, syntax: UID) -> None:
    """Hold the header against the number of bytes of uncompressed pixels.

    Raises:
        InputError: too few, or enough for several images.
    """
    needed, present = layout.byte_count, len(content)
    if present < needed:
        size = f"{layout.columns}x{layout.rows}"
        raise InputError(f"pixels cannot be decoded ({syntax.name}): {present} bytes, {size} pixels need {needed}")
    if present >= 2 * needed:
        raise InputError(f"holds {present} bytes of pixels, one image has {needed}; extract the frame that is meant")


def available_decoder(syntax: UID) -> Decoder:
    """The decoder of a transfer syntax in pydicom.

    Raises:
        InputError: there is none, or its plug-ins are missing, which are named.
    """
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError as error:
        raise InputError(f"pixels cannot be decoded ({syntax.name}): pydicom has no decoder for it") from error
    if not decoder.is_available:
        raise InputError(f"pixels cannot be decoded ({syntax.name}): {needed_plugins(decoder.missing_dependencies)}")
    return decoder


def is_deep_jpeg(header: FrameHeader | None, layout: PixelLayout, syntax: UID) -> bool:
    """Whether a frame is a grey JPEG of 12 bits with unsigned values, which pydicom does not let GDCM decode."""
    deep = header is not None and header.bits > PILLOW_BITS and header.samples == 1
    return deep and syntax == JPEGExtended12Bit and layout.allocated == 16 and not layout.signed


def options(dataset: Dataset, layout: PixelLayout) -> dict[str, Any]:
    """What pydicom's decoders ask for, as numbers and capitals, whatever the header has them as."""
    return {
        "rows": layout.rows,
        "columns": layout.columns,
        "samples_per_pixel": layout.samples,
        "photometric_interpretation": layout.interpretation,
        "planar_configuration": int(layout.planar),
        "bits_allocated": layout.allocated,
        "bits_stored": layout.stored,
        "pixel_representation": int(layout.signed),
        "number_of_frames": 1,
        "pixel_keyword": "PixelData",
        "pixel_vr": dataset["PixelData"].VR,
    }


def safe_plugin(available: Collection[str], header: FrameHeader | None) -> str:
    """The plug-in of pydicom that decodes a frame, by :data:`SAFE_PLUGINS`; empty for whichever there is."""
    deep_jpeg = header is not None and header.bits > PILLOW_BITS
    usable = [name for name in SAFE_PLUGINS if name in available and not (name == PILLOW and deep_jpeg)]
    return usable[0] if usable else ""


def needed_plugins(missing: list[str]) -> str:
    """What to install, from pydicom's lines ``name - requires package>=version and package>=version``."""
    choices = []
    for line in missing:
        names = re.findall(r"[A-Za-z][\w-]*(?=>=)", line.partition(" requires ")[2])
        choices.append("pip install " + " ".join(names))
    return "a plug-in of pydicom is missing: " + ", or ".join(choices)


def shifted(words: NDArray[Any], layout: PixelLayout) -> NDArray[Any]:
    """Move the stored bits of ``words`` from High Bit, where old files have them, down to bit 0; the sign follows.

    Other bits are lost. A header whose High Bit is wrong is told by words that have nothing in the upper bits, but
    something below the stored ones.
    """
    unused = layout.high_bit + 1 - layout.stored
    unsigned = words.view(words.dtype.str.replace("i", "u"))
    if int(unsigned.max()) < 1 << layout.stored and (unsigned & ((1 << unused) - 1)).any():
        return words
    return np.asarray((words << (layout.allocated - 1 - layout.high_bit)) >> (layout.allocated - layout.stored))


def grey_from_palette(indices: NDArray[Any], dataset: Dataset) -> NDArray[Any]:
    """Grey ``(H, W)`` of indices ``(H, W)`` into a palette that holds greys.

    Raises:
        InputError: a colour image, or a palette that is missing or damaged.
    """
    try:
        rgb = apply_color_lut(indices, dataset)
    except MemoryError:
        raise
    except Exception as error:  # pydicom raises many types, the messages of some being NumPy's
        raise InputError("has no palette for its palette colours, or a damaged one") from error
    return grey_from_colour(rgb, 8 * rgb.dtype.itemsize)


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
