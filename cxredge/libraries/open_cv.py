"""OpenCV, imported so that the environment stays as it was.

On Linux its loader puts a folder, and where the variable was not set an empty entry, into ``LD_LIBRARY_PATH``:
programs that a host application starts afterwards would look for libraries in their working folder. OpenCV
itself does not need it, since the dynamic linker has read the variable when the process started.
"""

from __future__ import annotations

from cxredge.libraries.environment import kept

with kept("LD_LIBRARY_PATH"):
    import cv2

__all__ = ["cv2"]
