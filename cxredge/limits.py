"""How large and how deep what comes from a file may be, checked before anything is parsed or allocated.

Every limit is far above what a real file needs (SECURITY.md lists them), and far below what would bring
the machine down. A :class:`LimitError` becomes the error of whoever reads, with the file's name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MEBIBYTE = 1 << 20

MOST_PIXELS = 400_000_000
"""Pixels of a radiograph: 20 000 x 20 000, ten times the largest detectors and film scans at hand."""
LONGEST_SIDE = 65_535
"""Rows and Columns of DICOM are 16 bits wide (PS3.3, C.7.6.3), sides of JPEG too."""
LARGEST_IMAGE_FILE = 4096 * MEBIBYTE
"""Bytes of one radiograph's file: 400 megapixels of eight bytes, and the rest."""
LARGEST_MODEL = 1024 * MEBIBYTE
"""Bytes of a model file; the paper's network has 134 MB."""
LARGEST_WEIGHTS = 4096 * MEBIBYTE
"""Bytes of a checkpoint's weights, or of its training state; those of the paper's network have 1 GB."""
LARGEST_WEIGHTS_HEADER = 4 * MEBIBYTE
"""Bytes of the JSON at the start of a safetensors file."""
LARGEST_CONFIG = MEBIBYTE // 4
"""Bytes of a training configuration."""
LARGEST_JSON = 64 * MEBIBYTE
"""Bytes of a JSON file: ranges, calibrations, evaluations."""
MOST_LISTED = 10_000_000
"""Rows of a Parquet manifest of radiographs."""
LARGEST_MANIFEST = 256 * MEBIBYTE
MOST_ROWS = 1_000_000
"""Bytes and rows of a data set's manifest."""
DEEPEST_NESTING = 32
"""Objects, lists and tables inside one another; our own files reach 6."""

TOO_DEEP = f"is nested deeper than {DEEPEST_NESTING} levels"


class LimitError(ValueError):
    """Something is larger or deeper than it may be; the message goes on after a file's name."""


def require_image_size(height: int, width: int) -> None:
    """Check the size that a header announces.

    Raises:
        LimitError: not positive, or more than 400 megapixels or 65 535 pixels a side.
    """
    if height < 1 or width < 1:
        raise LimitError(f"has a size of {width}x{height} pixels, which is none")
    if max(height, width) > LONGEST_SIDE or height * width > MOST_PIXELS:
        raise LimitError(
            f"is a decompression bomb or too large: {width}x{height} pixels, at most {MOST_PIXELS // 10**6} megapixels "
            f"and {LONGEST_SIDE} pixels a side are read"
        )


def require_file_size(path: Path, most: int) -> None:
    """Check a file's size before it is read.

    Raises:
        LimitError: more than ``most`` bytes.
        OSError: there is no such file.
    """
    size = path.stat().st_size
    if size > most:
        raise LimitError(f"has {size} bytes, at most {most} are read")


def read_bytes(path: Path, most: int) -> bytes:
    """Content of a file of at most ``most`` bytes, also where it grows or tells no size (a pipe).

    Raises:
        LimitError: there is more.
        OSError: it cannot be read.
    """
    require_file_size(path, most)
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise LimitError(f"has more than {most} bytes")
    return content


def read_json(path: Path, most: int = LARGEST_JSON) -> Any:
    """The value in a JSON file; see :func:`parse_json`.

    Raises:
        OSError: it cannot be read.
        ValueError: too large, too deep, or not JSON in UTF-8.
    """
    return parse_json(read_bytes(path, most).decode("utf-8"))


def parse_json(text: str) -> Any:
    """The value of a JSON text.

    Raises:
        ValueError: deeper than 32 levels, or not JSON; NaN and infinities are not.
    """
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise LimitError(TOO_DEEP) from error
    require_depth(value)
    return value


def require_depth(value: Any) -> None:
    """Raise :class:`LimitError` where lists and tables of a parsed ``value`` are nested deeper than 32 levels."""
    level = [value]
    for _ in range(DEEPEST_NESTING + 1):
        containers = [one for one in level if isinstance(one, dict | list)]
        if not containers:
            return
        level = [inner for one in containers for inner in (one.values() if isinstance(one, dict) else one)]
    raise LimitError(TOO_DEEP)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")
