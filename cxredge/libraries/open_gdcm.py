"""GDCM, which decodes compressed DICOM pixels for pydicom, imported so that the process stays as it was.

Importing pydicom imports GDCM, and that sets ``GDCM_RESOURCES_PATH`` for whatever programs a host application
starts afterwards; it needs the variable only for the moment. Importing pydicom also imports requests where that is
installed, which adds filters to the host's warnings.
"""

from __future__ import annotations

import sys
import warnings
from contextlib import suppress

from cxredge.libraries.environment import kept


def import_quietly() -> None:
    """Import GDCM where it is installed, and pydicom after it, unless they are there already."""
    if "pydicom" in sys.modules:
        return
    with kept("GDCM_RESOURCES_PATH"), warnings.catch_warnings():
        with suppress(ImportError):
            import gdcm  # noqa: F401 (for its effect)
        import pydicom  # noqa: F401 (for its effect)
