"""Sample files for who has no radiographs at hand: ``cxredge sample DIR``.

The radiographs come from :mod:`cxredge.phantom` and show no patient. They are written as the kinds
of files that hospitals and data sets hold, so that each way into :func:`cxredge.read_radiograph` is
used: PNG of 8 and 16 bits, and DICOM of both polarities.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cxredge.errors import OutputError
from cxredge.phantom import WHITE, MadeRadiograph, make_radiograph
from cxredge.radiograph import Polarity

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

__all__ = ["SAMPLES", "MadeRadiograph", "make_radiograph", "write_samples"]

SAMPLES: dict[str, tuple[int, int, int]] = {
    "made-1.png": (1, 1024, 1024),
    "made-2.png": (2, 1024, 860),
    "made-3.dcm": (3, 1280, 1100),
    "made-4.dcm": (4, 900, 1080),
}
"""The files, each with the seed, height and width of its radiograph."""

IMAGE_WIDTH_MM = 400.0
"""Width of the detector that a made radiograph covers."""
BITS = 12
MADE_DATE, MADE_TIME = "20000101", "120000"
"""When the made radiographs were taken, by their own account."""


def write_samples(folder: Path) -> list[Path]:
    """Write four made radiographs: an 8-bit and a 16-bit PNG, a MONOCHROME2 and a MONOCHROME1 DICOM file.

    Args:
        folder: where to; it is created where it does not exist. Repeats give identical files.

    Returns:
        The files written, in the order of their names.

    Raises:
        OutputError: the folder cannot be written, or one of the files is there already (nothing is written then).
    """
    paths = [folder / name for name in SAMPLES]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        present = [path.name for path in paths if path.exists() or path.is_symlink()]
        if present:
            raise OutputError(f"{folder} holds {', '.join(present)} already; delete them or choose another folder")
        for path, (seed, height, width) in zip(paths, SAMPLES.values(), strict=True):
            write_sample(path, make_radiograph(seed, height, width).pixels)
    except OSError as error:
        raise OutputError(f"samples cannot be written to {folder}: {error.strerror or error}") from error
    return paths


def write_sample(path: Path, pixels: NDArray[np.uint16]) -> None:
    """Write 12-bit pixels ``(H, W)`` to a new file of the kind that its name in :data:`SAMPLES` stands for."""
    if path.name == "made-1.png":
        write_png(path, np.asarray(pixels >> (BITS - 8), np.uint8))
    elif path.name == "made-2.png":
        write_png(path, pixels << (16 - BITS))
    elif path.name == "made-3.dcm":
        write_dicom(path, pixels, "MONOCHROME2")
    else:
        write_dicom(path, pixels, "MONOCHROME1", compress=True)


def write_png(path: Path, pixels: NDArray[Any]) -> None:
    """Write ``(H, W)`` uint8 or uint16 pixels to a new PNG of that bit depth."""
    from PIL import Image

    with path.open("xb") as file:
        Image.fromarray(pixels).save(file, format="PNG")


def write_dicom(path: Path, pixels: NDArray[np.uint16], polarity: Polarity, compress: bool = False) -> None:
    """Write a new Digital X-Ray Image - For Presentation file (PS3.3, A.26).

    Args:
        path: the file.
        pixels: ``(H, W)`` 12-bit values of which the largest is shown white.
        polarity: how they are stored; for MONOCHROME1 they are inverted.
        compress: as RLE Lossless, else Explicit VR Little Endian.
    """
    from pydicom.uid import RLELossless

    dataset = dicom_header(path.stem, polarity, *pixels.shape)
    stored = pixels if polarity == "MONOCHROME2" else WHITE - pixels
    dataset.PixelData = stored.astype("<u2").tobytes()
    if compress:
        dataset.compress(RLELossless, generate_instance_uid=False)
    with path.open("xb") as file:
        dataset.save_as(file, enforce_file_format=True)


def dicom_header(name: str, polarity: Polarity, height: int, width: int) -> Dataset:
    """Everything but the pixels of a DX For Presentation object; ``name`` is the root of its UIDs."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid

    dataset = Dataset()
    for module in (patient_and_study(), series_and_equipment(), acquisition(width), image(polarity, height, width)):
        for keyword, value in module.items():
            setattr(dataset, keyword, value)
    dataset.SOPClassUID = DigitalXRayImageStorageForPresentation
    for keyword in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
        setattr(dataset, keyword, generate_uid(entropy_srcs=["cxredge", name, keyword]))
    dataset.AnatomicRegionSequence = [coded("816094009", "SCT", "Chest")]
    dataset.ViewCodeSequence = [coded("272479007", "SCT", "postero-anterior")]
    dataset.ViewCodeSequence[0].ViewModifierCodeSequence = []
    dataset.AcquisitionContextSequence = []
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return dataset


def coded(value: str, scheme: str, meaning: str) -> Dataset:
    """An item of a code sequence."""
    from pydicom.dataset import Dataset

    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def patient_and_study() -> dict[str, Any]:
    """Attributes of the patient and the study: nobody's."""
    return {
        "PatientName": "Made^Radiograph",
        "PatientID": "MADE",
        "PatientBirthDate": "",
        "PatientSex": "",
        "StudyDate": MADE_DATE,
        "StudyTime": MADE_TIME,
        "StudyID": "MADE",
        "AccessionNumber": "",
        "ReferringPhysicianName": "",
        "StudyDescription": "Made radiograph, no patient",
    }


def series_and_equipment() -> dict[str, Any]:
    """Attributes of the series and of the machine, which is this program."""
    return {
        "Modality": "DX",
        "PresentationIntentType": "FOR PRESENTATION",
        "SeriesNumber": 1,
        "SeriesDate": MADE_DATE,
        "SeriesTime": MADE_TIME,
        "Manufacturer": "cxredge",
        "ManufacturerModelName": "cxredge sample",
    }


def acquisition(width: int) -> dict[str, Any]:
    """Attributes of positioning and of the detector, for an image of ``width`` pixels."""
    spacing = round(IMAGE_WIDTH_MM / width, 6)
    return {
        "BodyPartExamined": "CHEST",
        "ViewPosition": "PA",
        "PatientOrientation": ["L", "F"],
        "ImageLaterality": "U",
        "DetectorType": "DIRECT",
        "ImagerPixelSpacing": [spacing, spacing],
        "AcquisitionDate": MADE_DATE,
        "AcquisitionTime": MADE_TIME,
    }


def image(polarity: Polarity, height: int, width: int) -> dict[str, Any]:
    """Attributes of the pixels and how they are shown."""
    return {
        "ImageType": ["ORIGINAL", "PRIMARY"],
        "InstanceNumber": 1,
        "ContentDate": MADE_DATE,
        "ContentTime": MADE_TIME,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": polarity,
        "Rows": height,
        "Columns": width,
        "BitsAllocated": 16,
        "BitsStored": BITS,
        "HighBit": BITS - 1,
        "PixelRepresentation": 0,
        "PixelIntensityRelationship": "LOG",
        "PixelIntensityRelationshipSign": -1 if polarity == "MONOCHROME2" else 1,
        "RescaleIntercept": 0,
        "RescaleSlope": 1,
        "RescaleType": "US",
        "PresentationLUTShape": "IDENTITY" if polarity == "MONOCHROME2" else "INVERSE",
        "LossyImageCompression": "00",
        "BurnedInAnnotation": "NO",
        "WindowCenter": (WHITE + 1) // 2,
        "WindowWidth": WHITE + 1,
    }
