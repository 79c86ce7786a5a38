"""What a DICOM object that cxredge writes takes over from its source, and what becomes of values that are wrong.

The rule (docs/dicom-output.md), by the type that the standard gives an attribute in the new object (PS3.5, 7.4):
what is wrong or absent is *repaired* where a value is required (type 1), *emptied* where an empty one is allowed
(type 2), and *dropped* where none is needed (type 3). Attributes that are not listed here are never taken over.
"""

from __future__ import annotations

import datetime
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pydicom import config
from pydicom.datadict import dictionary_VR
from pydicom.multival import MultiValue
from pydicom.uid import UID, SecondaryCaptureImageStorage
from pydicom.valuerep import validate_value

from cxredge.dicom.file import open_data_set
from cxredge.errors import InputError
from cxredge.radiograph import Radiograph

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

EMPTIED = (
    "PatientName",
    "PatientID",
    "PatientBirthDate",
    "PatientSex",
    "StudyDate",
    "StudyTime",
    "StudyID",
    "AccessionNumber",
    "ReferringPhysicianName",
)
"""Of type 2: the patient and the study into which the object is filed."""
DROPPED = (
    "IssuerOfPatientID",
    "PatientAge",
    "PatientIdentityRemoved",
    "DeidentificationMethod",
    "StudyDescription",
    "BurnedInAnnotation",
)
"""Of type 3."""
UIDS = ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID")
"""Of type 1."""
MOMENTS = (
    ("ContentDate", "ContentTime"),
    ("AcquisitionDate", "AcquisitionTime"),
    ("SeriesDate", "SeriesTime"),
    ("StudyDate", "StudyTime"),
    ("InstanceCreationDate", "InstanceCreationTime"),
)
"""Where the moment of the object's content is looked for, in this order: it is the radiograph's."""
UNKNOWN_DATE, MIDNIGHT = "19000101", "000000"
"""Of type 1 where the source says nothing; the present moment would make every repeat another object."""
LOSSY = ("LossyImageCompression", "LossyImageCompressionRatio", "LossyImageCompressionMethod")
CHOICES = {
    "PatientSex": {"M", "F", "O"},
    "PatientIdentityRemoved": {"YES", "NO"},
    "BurnedInAnnotation": {"YES", "NO"},
}
"""Enumerated values (PS3.3, C.7.1.1, C.7.1.4, C.7.6.1)."""
KEYWORDS = sorted(
    {*EMPTIED, *DROPPED, *UIDS, *(name for pair in MOMENTS for name in pair), *LOSSY, "Rows", "Columns"}
    | {"SpecificCharacterSet"}
)
"""All that is read of a source."""

DATE = re.compile(r"(\d{4})(\.?)(\d{2})\2(\d{2})")
TIME = re.compile(r"([01]\d|2[0-3])(?:(:?)([0-5]\d)(?:\2([0-5]\d)(\.\d{1,6})?)?)?")
"""Also with the separators of ACR-NEMA, which PS3.5, 6.2 asks readers to know."""
ROOT = re.compile(r"[012]\.")
"""How an object identifier begins (PS3.5, 9.1)."""
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
METHODS = {"4.50": "ISO_10918_1", "4.51": "ISO_10918_1", "4.81": "ISO_14495_1", "4.91": "ISO_15444_1"}
"""Lossy transfer syntaxes by the end of their UIDs, and how Lossy Image Compression Method names them."""
TRANSFER_SYNTAX_ROOT = "1.2.840.10008.1.2."
NAMESPACE = uuid.UUID("5d6f0b57-6f1f-5d0c-9d52-6a2b3e1c8f04")
"""Of the UIDs that cxredge derives; any UUID does, as long as it stays."""


@dataclass(frozen=True)
class Lossy:
    """Lossy compression that the source has been through: its ratio and its method, empty where unknown."""

    ratio: str
    method: str


@dataclass(frozen=True)
class SourceHeader:
    """What is taken over from the header of a source, all of it valid.

    Attributes:
        values: of :data:`EMPTIED` (empty text where there is none) and :data:`DROPPED` (only those that there are).
        sop_class: SOP Class UID.
        sop_instance: SOP Instance UID.
        study: Study Instance UID.
        series: Series Instance UID.
        moment: date and time of the radiograph, as DICOM writes them.
        lossy: lossy compression of the source, or ``None``.
        changed: keywords of what was repaired, emptied or dropped because it was wrong, or repaired because it was
            absent.
    """

    values: dict[str, str]
    sop_class: str
    sop_instance: str
    study: str
    series: str
    moment: tuple[str, str]
    lossy: Lossy | None
    changed: tuple[str, ...] = ()


def read_source_header(path: Path, radiograph: Radiograph) -> SourceHeader:
    """The header of the file that a radiograph was read from.

    Raises:
        InputError: it is not DICOM, or has changed since.
    """
    dataset = open_data_set(path, keywords=KEYWORDS)
    size = (dataset.get("Rows"), dataset.get("Columns"))
    if dataset.get("SOPInstanceUID") != radiograph.identity or size != radiograph.shape:
        raise InputError("was changed while it was being segmented", path)
    return source_header(dataset)


def source_header(dataset: Dataset) -> SourceHeader:
    """What is taken over from a data set, by the rule above."""
    changed: list[str] = []
    values = {keyword: found(dataset, keyword, changed) for keyword in (*EMPTIED, *DROPPED)}
    if values["PatientIdentityRemoved"] == "YES" and not values["DeidentificationMethod"]:
        values["DeidentificationMethod"] = "As the source image"
    uids = {keyword: found(dataset, keyword, changed) for keyword in UIDS}
    instance = uids["SOPInstanceUID"] or repaired(dataset, "SOPInstanceUID", "", changed)
    return SourceHeader(
        {keyword: value for keyword, value in values.items() if value or keyword in EMPTIED},
        image_class(dataset, uids["SOPClassUID"], changed),
        instance,
        uids["StudyInstanceUID"] or repaired(dataset, "StudyInstanceUID", instance, changed),
        uids["SeriesInstanceUID"] or repaired(dataset, "SeriesInstanceUID", instance, changed),
        moment(dataset, changed),
        lossy_compression(dataset),
        tuple(dict.fromkeys(changed)),
    )


def found(dataset: Dataset, keyword: str, changed: list[str]) -> str:
    """The valid value of an attribute, else empty text; one that is wrong is noted in ``changed``."""
    raw = raw_text(dataset, keyword)
    value = valid(keyword, raw)
    if raw != value and not value:
        changed.append(keyword)
    return value


def raw_text(dataset: Dataset, keyword: str) -> str:
    """The text of an attribute, empty where it is absent; several values are joined, bytes written as hexadecimal."""
    try:
        value = dataset.get(keyword)
    except Exception:  # pydicom raises many types on values of the wrong kind or number
        return "\0unreadable"
    if value is None:
        return ""
    if isinstance(value, MultiValue | list):
        return "\\".join(map(str, value))
    return (value.hex() if isinstance(value, bytes) else str(value)).strip(" \0")


def valid(keyword: str, text: str) -> str:
    """``text`` where it is one valid value of an attribute, in DICOM's own form; else empty text."""
    vr = dictionary_VR(keyword)
    if vr == "DA":
        return valid_date(text)
    if vr == "TM":
        return valid_time(text)
    if CONTROL.search(text) or "\\" in text or text not in CHOICES.get(keyword, {text}):
        return ""
    if vr == "UI" and not ROOT.match(text):
        return ""
    try:
        validate_value(vr, text, config.RAISE)
    except ValueError:
        return ""
    return text


def valid_date(text: str) -> str:
    """A date as ``YYYYMMDD``, or empty text."""
    match = DATE.fullmatch(text)
    try:
        return datetime.date(*map(int, match.group(1, 3, 4))).strftime("%Y%m%d") if match else ""
    except ValueError:
        return ""


def valid_time(text: str) -> str:
    """A time as ``HHMMSS.FFFFFF``, as far as it goes, or empty text."""
    match = TIME.fullmatch(text)
    return "".join(part or "" for part in match.group(1, 3, 4, 5)) if match else ""


def repaired(dataset: Dataset, keyword: str, instance: str, changed: list[str]) -> str:
    """A UID in place of one that is wrong or absent: always the same for the same source.

    Of a wrong one, from its text, so that what belongs together stays together; of an absent one, from ``instance``.

    Raises:
        InputError: neither.
    """
    text = raw_text(dataset, keyword)
    if not text and not instance:
        raise InputError("has no SOP Instance UID, which a DICOM object has to refer to")
    changed.append(keyword)
    return str(derived_uid("source", keyword, text or instance))


def image_class(dataset: Dataset, sop_class: str, changed: list[str]) -> str:
    """SOP Class UID, from the file's meta information where the data set has none; at last Secondary Capture."""
    if sop_class:
        return sop_class
    changed.append("SOPClassUID")
    of_the_file = valid("SOPClassUID", str(dataset.file_meta.get("MediaStorageSOPClassUID") or ""))
    return of_the_file or str(SecondaryCaptureImageStorage)


def moment(dataset: Dataset, changed: list[str]) -> tuple[str, str]:
    """Date and time of the radiograph."""
    for day, time in MOMENTS:
        date = found(dataset, day, changed)
        if date:
            return date, found(dataset, time, changed) or MIDNIGHT
    return UNKNOWN_DATE, MIDNIGHT


def lossy_compression(dataset: Dataset) -> Lossy | None:
    """Lossy compression that the header tells of, or that the file is in."""
    syntax = str(dataset.file_meta.get("TransferSyntaxUID") or "")
    method = METHODS.get(syntax.removeprefix(TRANSFER_SYNTAX_ROOT), "")
    if valid("LossyImageCompression", raw_text(dataset, "LossyImageCompression")) != "01" and not method:
        return None
    named, ratio = (valid(keyword, raw_text(dataset, keyword)) for keyword in reversed(LOSSY[1:]))
    return Lossy(ratio, named or method)


def derived_uid(*parts: str) -> UID:
    """A UID made of a UUID of version 5 (PS3.5, B.2): the same for the same parts."""
    return UID(f"2.25.{uuid.uuid5(NAMESPACE, chr(10).join(parts)).int}")
