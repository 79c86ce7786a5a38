"""What a DICOM header says about the view: frontal or not, of a chest or not, and how the patient lies in it.

Headers are often empty or wrong, so that nothing is refused here: what speaks against a frontal chest radiograph
becomes a note. Codes are read in both of DICOM's schemes, SNOMED CT and the older SRT (PS3.16, CID 4009 and 4010).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, TypeAlias

from cxredge.dicom.spacing import text
from cxredge.radiograph import LATERAL, NOT_CHEST, OBLIQUE, OTHER_MODALITY, ROTATED

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydicom.dataset import Dataset

Concepts: TypeAlias = "Mapping[str, tuple[str, ...]]"
"""Concepts by their meaning, each with its codes."""

RADIOGRAPHY = frozenset({"CR", "DX", "RG", "SC", "OT"})
"""Modalities (PS3.3, C.7.3.1.1.1) of a radiograph, or of a copy that does not say what it is of."""
RADIOGRAPHY_CLASSES = (
    "1.2.840.10008.5.1.4.1.1.1",  # Computed Radiography
    "1.2.840.10008.5.1.4.1.1.1.1",  # Digital X-Ray, for presentation
    "1.2.840.10008.5.1.4.1.1.1.1.1",  # Digital X-Ray, for processing
    "1.2.840.10008.5.1.4.1.1.7",  # Secondary Capture, and below it those with several frames
)
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7."
STANDARD_STORAGE = "1.2.840.10008.5.1.4.1.1."
"""Root of the standard's image classes; private classes are not judged."""

CHEST_WORDS = ("CHEST", "THORA", "TORAX", "TORACE", "LUNG", "PULM", "POUMON", "BABYGRAM", "WHOLEBODY")
"""Parts of the names that vendors and sites write for a chest, in capitals."""
NOT_CHEST_WORDS = ("SPINE", "AORTA", "RIB", "CLAVIC")
"""Thoracic, but another examination."""
NO_PART = frozenset({"", "UNKNOWN", "OTHER", "DEFAULT", "NONE", "NA", "UNSPECIFIED", "BODY", "GENERAL"})
CHEST_CODES = {
    "chest": ("816094009", "51185008", "T-D3000"),
    "thoracic cavity": ("43799004", "T-D3200"),
    "lung": ("39607008", "T-28000"),
    "apex of lung": ("86598002", "T-280A0"),
    "mediastinum": ("72410000", "T-D3300"),
    "chest and abdomen": ("416550000", "R-FAB55"),
    "chest, abdomen and pelvis": ("416775004", "R-FAB56"),
    "neck and chest": ("417437006", "R-FAB52"),
    "neck, chest and abdomen": ("416152001", "R-FAB53"),
    "neck, chest, abdomen and pelvis": ("416319003", "R-FAB54"),
    "entire body": ("38266002", "T-D0010"),
}
"""What a chest radiograph may be coded as, in SNOMED CT and SRT."""

LATERAL_POSITIONS = frozenset({"LL", "RL", "LAT", "LATERAL", "L", "R", "LLAT", "RLAT", "LLATERAL", "RLATERAL"})
OBLIQUE_POSITIONS = frozenset({"RLO", "LLO", "RAO", "LAO", "RPO", "LPO", "OBL", "OBLIQUE"})
LATERAL_CODES = {
    "lateral": ("399067008", "R-102CD"),
    "left lateral": ("399173006", "R-10236"),
    "right lateral": ("399198007", "R-10232"),
    "sagittal": ("30730003", "G-A145"),
}
OBLIQUE_CODES = {
    "oblique": ("399182000", "R-102C1"),
    "left oblique": ("399184004", "R-10238"),
    "right oblique": ("399236003", "R-10234"),
    "left anterior oblique": ("399135007", "R-10220"),
    "right anterior oblique": ("399356000", "R-40985"),
    "left posterior oblique": ("399006002", "R-10212"),
    "right posterior oblique": ("399038007", "R-10210"),
    "antero-posterior oblique": ("399312000", "R-10208"),
    "postero-anterior oblique": ("399059000", "R-10216"),
    "frontal oblique": ("399160007", "R-10204"),
    "lateral oblique": ("260427002", "R-40783"),
}

UPRIGHT = (frozenset("LR"), "F")
"""Main directions of rows and of columns in a frontal view as it is shown: to a side, and to the feet."""
DIRECTIONS = re.compile(r"[ALPRHF]{1,3}")


def view_notes(dataset: Dataset) -> tuple[str, ...]:
    """What the header says against an upright frontal chest radiograph, in the order of its weight."""
    orientation = patient_orientation(dataset)
    notes = (
        (OTHER_MODALITY, is_other_modality(dataset)),
        (NOT_CHEST, is_other_part(dataset)),
        (LATERAL, is_lateral(dataset) or is_side_view(orientation)),
        (OBLIQUE, is_oblique(dataset)),
        (ROTATED, is_rotated(orientation)),
    )
    return tuple(note for note, holds in notes if holds)


def is_other_modality(dataset: Dataset) -> bool:
    """Whether Modality or the SOP Class is one of something else than radiography."""
    modality, sop_class = text(dataset.get("Modality")), str(dataset.get("SOPClassUID") or "").strip()
    other_class = sop_class.startswith(STANDARD_STORAGE) and not (
        sop_class in RADIOGRAPHY_CLASSES or sop_class.startswith(SECONDARY_CAPTURE)
    )
    return other_class or (modality != "" and modality not in RADIOGRAPHY)


def is_other_part(dataset: Dataset) -> bool:
    """Whether the body part is named, in words or in codes, and none of the names is a chest's."""
    named = re.sub(r"[^A-Z]", "", text(dataset.get("BodyPartExamined")))
    parts = [is_chest_name(named)] if named not in NO_PART else []
    parts += [
        is_one_of(code, CHEST_CODES) or is_chest_name(meaning.upper())
        for code, meaning in codes(dataset, "AnatomicRegionSequence")
    ]
    return bool(parts) and not any(parts)


def is_chest_name(name: str) -> bool:
    """Whether a body part's name in capitals is a chest's."""
    return any(word in name for word in CHEST_WORDS) and not any(word in name for word in NOT_CHEST_WORDS)


def is_lateral(dataset: Dataset) -> bool:
    """Whether View Position or View Code Sequence says lateral. A decubitus view is frontal, though lying."""
    return position(dataset) in LATERAL_POSITIONS or has_view(dataset, LATERAL_CODES)


def is_oblique(dataset: Dataset) -> bool:
    """Whether View Position or View Code Sequence says oblique."""
    return position(dataset) in OBLIQUE_POSITIONS or has_view(dataset, OBLIQUE_CODES)


def has_view(dataset: Dataset, wanted: Concepts) -> bool:
    """Whether View Code Sequence holds one of the codes."""
    return any(is_one_of(code, wanted) for code, _ in codes(dataset, "ViewCodeSequence"))


def is_one_of(code: str, concepts: Concepts) -> bool:
    """Whether a code stands for one of the concepts, in either scheme."""
    return any(code in synonyms for synonyms in concepts.values())


def position(dataset: Dataset) -> str:
    """View Position, letters only."""
    return re.sub(r"[^A-Z]", "", text(dataset.get("ViewPosition")))


def codes(dataset: Dataset, keyword: str) -> Iterator[tuple[str, str]]:
    """(Code Value, Code Meaning) of a code sequence's items; those that are malformed are left out."""
    for item in dataset.get(keyword) or ():
        code, meaning = item.get("CodeValue"), item.get("CodeMeaning")
        if isinstance(code, str):
            yield code.strip(), meaning if isinstance(meaning, str) else ""


def patient_orientation(dataset: Dataset) -> tuple[str, str] | None:
    """Patient Orientation (PS3.3, C.7.6.1.1.1): directions of a row and a column, or ``None``."""
    value = dataset.get("PatientOrientation")
    if value is None or isinstance(value, str) or len(value) != 2:
        return None
    row, column = (text(direction) for direction in value)
    return (row, column) if DIRECTIONS.fullmatch(row) and DIRECTIONS.fullmatch(column) else None


def is_side_view(orientation: tuple[str, str] | None) -> bool:
    """Whether rows run mainly to the patient's front or back, as only in a view from the side."""
    return orientation is not None and orientation[0][0] in "AP"


def is_rotated(orientation: tuple[str, str] | None) -> bool:
    """Whether a view from the front does not have the head at the top."""
    if orientation is None or is_side_view(orientation):
        return False
    row, column = orientation
    return row[0] not in UPRIGHT[0] or column[0] != UPRIGHT[1]
