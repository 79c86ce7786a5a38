"""``NAME.seg.dcm``: the lungs as a DICOM segmentation (PS3.3, A.51), with a segment for each lung.

Made by highdicom. The source is referenced, pixel by pixel; there is no frame of reference, since a projection has
none, and no spacing, which would need a slice thickness: both are the source's.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from highdicom import AlgorithmIdentificationSequence
from highdicom.color import CIELabColor
from highdicom.seg import SegmentAlgorithmTypeValues, SegmentDescription, SegmentsOverlapValues
from highdicom.seg import Segmentation as SegmentationObject
from highdicom.sr import CodedConcept
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes

from cxredge import __version__
from cxredge.algorithm import Algorithm
from cxredge.dicom.objects import MANUFACTURER, empty_image, encoded, equipment, item, object_uid
from cxredge.dicom.source import SourceHeader
from cxredge.errors import InputError
from cxredge.quality.laterality import Lungs, Region, find_lungs
from cxredge.runs.formats import SegmentationType
from cxredge.segmenter import Segmentation

SERIES_NUMBER = 9001
COLOURS = {"Right lung": (0, 170, 255), "Left lung": (255, 170, 0)}
"""Recommended colours of the segments, RGB."""
LATERALITY = {"Right lung": codes.SCT.Right, "Left lung": codes.SCT.Left}
"""Of the segments (PS3.16, CID 244)."""


def segmentation_file(
    segmentation: Segmentation, source: SourceHeader, algorithm: Algorithm, kind: SegmentationType = "binary"
) -> bytes:
    """The lungs as a DICOM file.

    Args:
        segmentation: whose mask.
        source: header of the radiograph.
        algorithm: that segmented.
        kind: ``binary``, which every viewer of segmentations knows, or ``labelmap``, which is new in DICOM 2024d.

    Raises:
        InputError: there is no lung; a segmentation cannot be empty.
    """
    lungs = find_lungs(segmentation.mask, segmentation.radiograph)
    if not lungs.found:
        raise InputError("no lung was found, and a DICOM segmentation cannot be empty")
    dataset = segmentation_object(segmentation, lungs, source, algorithm, kind)
    dimensions = object_uid(source, algorithm, kind, segmentation.mask, "dimensions")
    set_references(dataset, source, str(dimensions))
    return encoded(dataset, source, segmentation.radiograph)


def segmentation_object(
    segmentation: Segmentation, lungs: Lungs, source: SourceHeader, algorithm: Algorithm, kind: SegmentationType
) -> Dataset:
    """Highdicom's object, which does not know the patient yet."""
    radiograph, mask = segmentation.radiograph, segmentation.mask
    named = {name: lung for name, lung in (("Right lung", lungs.right), ("Left lung", lungs.left)) if lung is not None}
    dataset: Any = SegmentationObject(
        source_images=[empty_image(source, radiograph)],
        pixel_array=label_map(list(named.values()), radiograph.shape),
        segmentation_type=kind.upper(),
        segment_descriptions=[segment(number, name, algorithm) for number, name in enumerate(named, 1)],
        series_instance_uid=object_uid(source, algorithm, kind, mask, "series"),
        sop_instance_uid=object_uid(source, algorithm, kind, mask, "instance"),
        series_number=SERIES_NUMBER,
        instance_number=1,
        content_label="LUNGS",
        content_description="Right and left lung",
        **equipment(algorithm),
    )
    dataset.SegmentsOverlap = SegmentsOverlapValues.NO.value
    return dataset


def label_map(lungs: list[Region], shape: tuple[int, int]) -> NDArray[np.uint8]:
    """``(H, W)`` of 0, and the number of each lung, counted from 1, where it is."""
    labels = np.zeros(shape, np.uint8)
    for number, lung in enumerate(lungs, 1):
        height, width = lung.pixels.shape
        labels[lung.top : lung.top + height, lung.left : lung.left + width][lung.pixels] = number
    return labels


def segment(number: int, name: str, algorithm: Algorithm) -> SegmentDescription:
    """Description of one lung (PS3.3, C.8.20.2): an anatomical structure (CID 7150), lung, with its laterality."""
    lung = CodedConcept.from_code(codes.SCT.Lung)
    lung.SegmentedPropertyTypeModifierCodeSequence = [item(LATERALITY[name])]
    return SegmentDescription(
        segment_number=number,
        segment_label=name,
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=lung,
        algorithm_type=SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=AlgorithmIdentificationSequence(
            name=algorithm.label,
            family=codes.DCM.ArtificialIntelligence,
            version=__version__,
            source=MANUFACTURER,
            parameters={
                "model_sha256": algorithm.sha256,
                "precision": algorithm.precision,
                "code": algorithm.code,
            },
        ),
        display_color=CIELabColor.from_rgb(*COLOURS[name]),
    )


def set_references(dataset: Dataset, source: SourceHeader, dimensions: str) -> None:
    """Name the source's own SOP Class where it is referenced, and the dimensions by a UID that a repeat keeps."""

    def set_values(level: Dataset, element: Any) -> None:
        if element.keyword == "ReferencedSOPClassUID" and level.ReferencedSOPInstanceUID == source.sop_instance:
            element.value = source.sop_class
        elif element.keyword == "DimensionOrganizationUID":
            element.value = dimensions

    dataset.walk(set_values)
