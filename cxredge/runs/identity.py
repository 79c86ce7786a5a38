"""Whose radiograph it is: read only where the user asks for it with ``--keep-identity``.

Nothing else in cxredge looks at these attributes, so that without the option they can reach no log, message,
result or picture. DICOM objects that are written carry them, as the standard demands; see docs/outputs.md.
"""

from __future__ import annotations

from pathlib import Path

from cxredge.dicom.file import open_data_set
from cxredge.errors import InputError

ATTRIBUTES = {"patient_id": "PatientID", "accession_number": "AccessionNumber"}
"""Fields of a record and the attributes that they come from (PS3.3, C.7.1.1 and C.7.2.1)."""


def read_identity(path: Path) -> dict[str, str | None]:
    """Patient ID and Accession Number of a file; ``None`` where it has none or is not DICOM."""
    try:
        dataset = open_data_set(path, keywords=[*ATTRIBUTES.values(), "SpecificCharacterSet"])
        return {field: text(dataset.get(keyword)) for field, keyword in ATTRIBUTES.items()}
    except InputError:  # PNG, or a file that has changed since it was read
        return dict.fromkeys(ATTRIBUTES)


def text(value: object) -> str | None:
    """A value as text, ``None`` where it is empty."""
    return str(value) or None if value is not None else None
