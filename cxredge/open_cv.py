"""OpenCV, imported so that the environment stays as it was.

On Linux its loader puts a folder, and where the variable was not set an empty entry, into ``LD_LIBRARY_PATH``:
programs that a host application starts afterwards would look for libraries in their working folder. OpenCV
itself does not need it, since the dynamic linker has read the variable when the process started.
"""

from __future__ import annotations

import os
import sys

VARIABLE = "LD_LIBRARY_PATH"


def import_quietly() -> None:
    """Import OpenCV; the environment is afterwards what it was."""
    before = os.environ.get(VARIABLE)
    try:
        import cv2  # noqa: F401 (for its effect)
    finally:
        if before is None:
            os.environ.pop(VARIABLE, None)
        else:
            os.environ[VARIABLE] = before


if "cv2" not in sys.modules:
    import_quietly()

import cv2  # noqa: E402 (only now)

__all__ = ["cv2"]
