"""GDCM, which decodes compressed DICOM pixels for pydicom, imported so that the environment stays as it was.

Importing pydicom imports GDCM, and that sets ``GDCM_RESOURCES_PATH`` for whatever programs a host application
starts afterwards; it needs the variable only for the moment.
"""

from __future__ import annotations

from contextlib import suppress

from cxredge.environment import kept


def import_quietly() -> None:
    """Import GDCM where it is installed, before pydicom does."""
    with kept("GDCM_RESOURCES_PATH"), suppress(ImportError):
        import gdcm  # noqa: F401 (for its effect)
