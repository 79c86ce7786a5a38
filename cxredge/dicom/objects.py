"""What the DICOM objects that cxredge writes have in common: who made them, from what, and a UID that a repeat keeps.

Two runs on the same radiograph with the same model give the same bytes: no date of the run, no random UID, and a
SOP Instance UID that is derived from source, model, kind of object and content (docs/dicom-output.md).
"""

from __future__ import annotations

import hashlib
from io import BytesIO
from typing import Any

import numpy as np
from highdicom.version import __version__ as highdicom_version
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.filewriter import dcmwrite
from pydicom.sr.codedict import codes
from pydicom.uid import UID, SecondaryCaptureImageStorage

from cxredge import __version__
from cxredge.algorithm import Algorithm
from cxredge.dicom.source import EMPTIED, SourceHeader, derived_uid
from cxredge.radiograph import Radiograph

MANUFACTURER = "cxredge"
DESCRIPTION = "Lungs, segmented by cxredge"
IMPLEMENTATION = derived_uid("implementation", MANUFACTURER)
"""Implementation Class UID (PS3.7, D.3.3.2): the same in all files that cxredge writes."""
UTF_8 = "ISO_IR 192"
"""Specific Character Set where a value needs one; ASCII, which everything reads, has none."""
OF_THE_RUN = (
    "InstanceCreationDate",
    "InstanceCreationTime",
    "DateOfSecondaryCapture",
    "TimeOfSecondaryCapture",
    "ContributionDateTime",
)
"""Attributes of type 3 that would tell when the object was made, and make every repeat another one."""


def empty_image(source: SourceHeader, radiograph: Radiograph) -> Dataset:
    """What a referenced image has to have for highdicom, about nobody: its warnings would tell of the patient.

    It passes for a secondary capture, since highdicom refuses classes that it does not know. A projection has no
    frame of reference, so that none is taken over from sources that have one.
    """
    image = Dataset()
    for keyword in EMPTIED:
        setattr(image, keyword, "")
    image.SOPClassUID, image.SOPInstanceUID = SecondaryCaptureImageStorage, source.sop_instance
    image.StudyInstanceUID, image.SeriesInstanceUID = source.study, source.series
    image.Rows, image.Columns = radiograph.shape
    image.Modality = "OT"
    set_lossy_compression(image, source)
    return image


def set_patient_and_study(dataset: Dataset, source: SourceHeader) -> None:
    """File an object into the study of its source."""
    if not all(value.isascii() for value in source.values.values()):
        dataset.SpecificCharacterSet = UTF_8
    for keyword, value in source.values.items():
        setattr(dataset, keyword, value)


def set_lossy_compression(dataset: Dataset, source: SourceHeader) -> None:
    """Say whether the radiograph has ever been compressed with a loss, which holds for what is made of it."""
    dataset.LossyImageCompression = "01" if source.lossy else "00"
    if source.lossy and source.lossy.ratio:
        dataset.LossyImageCompressionRatio = source.lossy.ratio
    if source.lossy and source.lossy.method:
        dataset.LossyImageCompressionMethod = source.lossy.method


def equipment(algorithm: Algorithm) -> dict[str, Any]:
    """Highdicom's arguments for what made the object."""
    return {
        "manufacturer": MANUFACTURER,
        "manufacturer_model_name": algorithm.label,
        "software_versions": __version__,
        "device_serial_number": algorithm.sha256,
        "series_description": DESCRIPTION,
    }


def item(code: Any) -> Dataset:
    """A coded concept as an item of a code sequence."""
    coded = Dataset()
    coded.CodeValue, coded.CodingSchemeDesignator, coded.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return coded


def source_reference(source: SourceHeader) -> Dataset:
    """An item of Source Image Sequence."""
    reference = Dataset()
    reference.ReferencedSOPClassUID = source.sop_class
    reference.ReferencedSOPInstanceUID = source.sop_instance
    reference.PurposeOfReferenceCodeSequence = [item(codes.DCM.SourceImageForImageProcessingOperation)]
    return reference


def object_uid(source: SourceHeader, algorithm: Algorithm, kind: str, mask: NDArray[np.bool_], use: str) -> UID:
    """A UID of what is said of a source by a model.

    The same for the same mask. Another version of cxredge or highdicom gives another, since it may write other
    attributes, and two objects never share a UID.

    Args:
        source: of the radiograph.
        algorithm: the model.
        kind: of object.
        mask: ``(H, W)`` lungs.
        use: what is to be named: ``series``, ``instance``, ``dimensions``.
    """
    outlined = hashlib.sha256(np.packbits(mask).tobytes()).hexdigest()
    return derived_uid(use, source.sop_instance, algorithm.sha256, kind, __version__, highdicom_version, outlined)


def encoded(dataset: Dataset, source: SourceHeader, radiograph: Radiograph) -> bytes:
    """A finished object as a DICOM file, filed into the study, without anything that tells when it was made."""
    set_patient_and_study(dataset, source)
    dataset.PatientOrientation = list(radiograph.orientation or ())
    for level in [dataset, *(dataset.get("ContributingEquipmentSequence") or ())]:
        for keyword in OF_THE_RUN:
            if keyword in level:
                delattr(level, keyword)
    dataset.ContentDate, dataset.ContentTime = source.moment
    dataset.file_meta.ImplementationClassUID = IMPLEMENTATION
    dataset.file_meta.ImplementationVersionName = f"CXREDGE_{__version__}"[:16]
    buffer = BytesIO()
    dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()
