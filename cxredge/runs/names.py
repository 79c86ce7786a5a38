"""Names of results: whatever an input is called, its results can be written on any file system, and only there.

Inputs come from media, archives and network folders, with names that are too long, hold control characters,
or mean something else on Windows. Names that need no change keep theirs.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path, PurePath, PureWindowsPath

from cxredge.errors import OutputError

FORBIDDEN = re.compile(r'[\x00-\x1f\x7f-\x9f<>:"|?*\\/\u2028-\u202e\u2066-\u2069\ud800-\udfff]')
"""Control characters, those that Windows forbids, those that turn text around, bytes that are no UTF-8."""
AT_THE_END = re.compile(r"[ .]+$")
"""Windows drops them, so two names become one; ``..`` is made of them."""
DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])(\..*)?", re.IGNORECASE)
"""Names of devices on Windows, with any extension."""
LONGEST_NAME = 223
"""Bytes of a name in UTF-8; file systems take 255, the suffix of a result is up to 32."""
DIGITS = 8
"""Hexadecimal digits of the original name's SHA-256 behind a changed one, so that different names stay different."""


def safe_path(path: PurePath) -> PurePath:
    """``path`` below the output folder with every part made safe; see :func:`safe_name`."""
    return PurePath(*(safe_name(part) for part in path.parts if part != path.anchor))


def safe_name(name: str) -> str:
    """``name`` itself where every file system takes it, else a name made of it and 8 digits of its hash.

    Args:
        name: one part of a path, without the suffix of a result.
    """
    safe = AT_THE_END.sub(lambda end: "_" * len(end[0]), FORBIDDEN.sub("_", name))
    safe = f"_{safe}" if DEVICES.fullmatch(safe) else safe
    if safe == name and len(name.encode()) <= LONGEST_NAME:
        return name
    kept = safe.encode()[: LONGEST_NAME - DIGITS - 1].decode(errors="ignore")
    return f"{kept}-{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:DIGITS]}"


def require_inside(folder: Path, name: PurePath | str) -> Path:
    """The place of a result in the output folder.

    Args:
        folder: the output folder; may itself be a link.
        name: path of the result below it.

    Returns:
        ``folder / name``.

    Raises:
        OutputError: it is not below ``folder``, by its name or through a link in it.
    """
    path = PurePath(name)
    if path.is_absolute() or ".." in path.parts or PureWindowsPath(name).anchor:
        raise OutputError(f"{folder}: the result '{path}' would lie outside of it")
    place = folder / path
    try:
        inside = place.parent.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError) as error:  # a loop of links is a RuntimeError before Python 3.13
        raise OutputError(f"{place.parent}: cannot be written: {error}") from error
    if not inside:
        raise OutputError(f"{place.parent}: leads out of the output folder through a link; remove the link")
    return place
