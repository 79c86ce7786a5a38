"""cxredge: lung segmentation of chest radiographs at the edge.

This package is the device: it reads radiographs, runs a model on the backend at hand and writes masks.
Training, export and calibration live in ``cxredge_train``, ``cxredge_export`` and
``cxredge_calibration``. Nothing heavy is imported until it is used.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from cxredge.errors import CxredgeError

if TYPE_CHECKING:
    from cxredge.bundle import bundled_model
    from cxredge.radiograph import Radiograph, read_radiograph
    from cxredge.segmenter import Segmentation, Segmenter

__version__ = "0.1.0"

logging.getLogger("cxredge").addHandler(logging.NullHandler())  # quiet unless the host asks

_HOME = {
    "Radiograph": "cxredge.radiograph",
    "Segmentation": "cxredge.segmenter",
    "Segmenter": "cxredge.segmenter",
    "bundled_model": "cxredge.bundle",
    "read_radiograph": "cxredge.radiograph",
}

__all__ = [
    "CxredgeError",
    "Radiograph",
    "Segmentation",
    "Segmenter",
    "__version__",
    "bundled_model",
    "read_radiograph",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(_HOME[name]), name)
    raise AttributeError(f"module 'cxredge' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
