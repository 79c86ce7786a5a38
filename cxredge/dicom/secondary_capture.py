"""``NAME.sc.dcm``: the radiograph with the lungs' contours drawn in, for viewers that show no segmentations.

A secondary capture (PS3.3, A.8.1) in colour, at the radiograph's own size up to 2048 pixels on its longer side.
"""

from __future__ import annotations

from typing import Any

from highdicom.sc import SCImage
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from cxredge.algorithm import Algorithm
from cxredge.contours import palette, picture_with_contours
from cxredge.dicom.objects import (
    encoded,
    equipment,
    item,
    object_uid,
    set_lossy_compression,
    source_reference,
)
from cxredge.dicom.source import SourceHeader
from cxredge.radiograph import Radiograph
from cxredge.segmenter import Segmentation

SERIES_NUMBER = 9002
LONGEST_SIDE = 2048
"""In pixels; an uncompressed picture of this size has 12 MB."""
KIND = "sc"
CUSTOM = ("L", "F")
"""What highdicom is told where the patient's orientation is unknown; the object then says nothing."""
BODY_PART = "CHEST"
"""Not one of a pair, so that the picture needs no Laterality."""
CALIBRATED = "GEOMETRY"
"""Pixel Spacing Calibration Type of a spacing in the patient (PS3.3, 10.7.1.3)."""


def secondary_capture_file(segmentation: Segmentation, source: SourceHeader, algorithm: Algorithm) -> bytes:
    """The picture as a DICOM file.

    Args:
        segmentation: whose radiograph and mask.
        source: header of the radiograph.
        algorithm: that segmented.
    """
    dataset = picture_object(segmentation, source, algorithm)
    describe(dataset, segmentation.radiograph, source, algorithm)
    return encoded(dataset, source, segmentation.radiograph)


def picture_object(segmentation: Segmentation, source: SourceHeader, algorithm: Algorithm) -> Dataset:
    """Highdicom's object, which does not know the patient yet."""
    picture = picture_with_contours(segmentation.radiograph, segmentation.mask, LONGEST_SIDE)
    mask = segmentation.mask
    dataset: Any = SCImage(
        pixel_array=palette()[picture],
        photometric_interpretation="RGB",
        bits_allocated=8,
        coordinate_system="PATIENT",
        patient_orientation=CUSTOM,
        study_instance_uid=source.study,
        series_instance_uid=object_uid(source, algorithm, KIND, mask, "series"),
        sop_instance_uid=object_uid(source, algorithm, KIND, mask, "instance"),
        series_number=SERIES_NUMBER,
        instance_number=1,
        **equipment(algorithm),
    )
    return dataset


def describe(dataset: Dataset, radiograph: Radiograph, source: SourceHeader, algorithm: Algorithm) -> None:
    """Say what the picture is of, how large it is, and what was done.

    Burned In Annotation asks for text that identifies the patient (PS3.3, C.7.6.1), which a contour is not: it is
    what the source says, and absent where that says nothing.
    """
    set_lossy_compression(dataset, source)
    dataset.BodyPartExamined = BODY_PART
    dataset.SourceImageSequence = [source_reference(source)]
    dataset.DerivationCodeSequence = [item(codes.cid7203.SegmentationImageDerivation)]
    dataset.DerivationDescription = (
        f"Contours of the lungs drawn in; model {algorithm.label}, sha256 {algorithm.sha256}"
    )
    set_spacing(dataset, radiograph)


def set_spacing(dataset: Dataset, radiograph: Radiograph) -> None:
    """Pixel Spacing of the picture, in the plane of the radiograph's; none where that is unknown or malformed."""
    if radiograph.spacing is None:
        return
    sides = zip(radiograph.spacing, radiograph.shape, (dataset.Rows, dataset.Columns), strict=True)
    dataset.PixelSpacing = [f"{spacing * side / drawn:.10g}" for spacing, side, drawn in sides]
    if radiograph.spacing_plane == "patient":
        dataset.PixelSpacingCalibrationType = CALIBRATED
        dataset.PixelSpacingCalibrationDescription = "As the source image says"
