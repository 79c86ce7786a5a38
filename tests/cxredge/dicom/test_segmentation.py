"""Segmentation objects: the lungs as they are, coded, referring to their source, right by dciodvfy, the same again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from typing import Any, Literal

import highdicom
import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import UID, ComputedRadiographyImageStorage, CTImageStorage

from cxredge import Segmentation, Segmenter, __version__
from cxredge.algorithm import Algorithm
from cxredge.dicom.segmentation import segmentation_file
from cxredge.dicom.source import source_header
from cxredge.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom, about values that are wrong on purpose

MakeDicom = Callable[..., Dataset]
Kind = Literal["binary", "labelmap"]
KINDS: tuple[Kind, ...] = ("binary", "labelmap")
ALGORITHM = Algorithm("darkness", "ab" * 32, "int8", "a_seg")
STUDY = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4", "SOPInstanceUID": "1.2.3.4.5"}
PRIVATE_CLASS = "1.2.826.0.1.3680043.9.9999.1"
SOURCES: dict[str, dict[str, Any]] = {
    "bare": {},
    "full": {
        **STUDY,
        "StudyDate": "20200101",
        "StudyTime": "101112",
        "PatientBirthDate": "19400305",
        "PatientSex": "F",
        "PatientAge": "079Y",
        "AccessionNumber": "A1",
        "StudyID": "1",
        "StudyDescription": "THORAX",
        "ReferringPhysicianName": "Ward^A",
        "PatientOrientation": ["L", "F"],
        "ImagerPixelSpacing": [0.2, 0.2],
    },
    "no uids of its study": {"SOPInstanceUID": "1.2.3.4.5"},
    "wrong": {
        "StudyInstanceUID": "not a UID",
        "SeriesInstanceUID": "1.02",
        "SOPInstanceUID": "x",
        "PatientSex": "?",
        "PatientAge": "81",
        "PatientBirthDate": "1940",
        "StudyDate": "20209999",
        "StudyTime": "99",
        "PatientID": "I" * 65,
        "PatientOrientation": ["UP", "DOWN"],
        "PixelSpacing": [0, 0],
    },
    "umlauts and kanji": {
        **STUDY,
        "SpecificCharacterSet": "ISO_IR 192",
        "PatientName": "Yamada^Tarou=山田^太郎",
        "StudyDescription": "Brustkorb, schräg",
    },
    "lossy": {**STUDY, "LossyImageCompression": "01", "LossyImageCompressionRatio": "10"},
    "de-identified": {**STUDY, "PatientIdentityRemoved": "YES"},
    "calibrated": {**STUDY, "PixelSpacing": [0.143, 0.15], "PixelSpacingCalibrationType": "FIDUCIAL"},
    "private class": {**STUDY, "SOPClassUID": PRIVATE_CLASS},
    "computed tomography": {
        **STUDY,
        "SOPClassUID": CTImageStorage,
        "Modality": "CT",
        "FrameOfReferenceUID": "1.2.9",
        "ImagePositionPatient": [0, 0, 0],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
    },
    "old dates": {**STUDY, "StudyDate": "1993.02.24", "StudyTime": "17:58:00"},
}


def made(segmenter: Segmenter, dataset: Dataset, kind: Kind = "binary") -> tuple[Segmentation, bytes]:
    segmentation = segmenter(dataset)
    return segmentation, segmentation_file(segmentation, source_header(dataset), ALGORITHM, kind)


def read(content: bytes) -> Any:
    return highdicom.seg.segread(BytesIO(content))


def lungs(content: bytes) -> dict[str, np.ndarray]:
    """Masks by the segments' labels."""
    seg = read(content)
    pixels = seg.get_pixels_by_source_instance([source_of(seg)], ignore_spatial_locations=True)
    assert pixels.shape[0] == 1
    return {seg.get_segment_description(n).segment_label: pixels[0, ..., n - 1] > 0 for n in seg.segment_numbers}


def source_of(seg: Any) -> str:
    return str(seg.ReferencedSeriesSequence[0].ReferencedInstanceSequence[0].ReferencedSOPInstanceUID)


@pytest.mark.parametrize("name", SOURCES)
def test_dciodvfy_finds_no_error(
    segmenter: Segmenter, make_dicom: MakeDicom, chest: np.ndarray, name: str, dicom_errors: Any
) -> None:
    _, content = made(segmenter, make_dicom(chest, 12, **SOURCES[name]))
    assert dicom_errors(content) == []


def test_dciodvfy_would_find_one(
    segmenter: Segmenter, make_dicom: MakeDicom, chest: np.ndarray, dicom_errors: Any
) -> None:
    _, content = made(segmenter, make_dicom(chest, 12, **STUDY))
    broken = dcmread(BytesIO(content))
    del broken.SegmentSequence[0].SegmentedPropertyTypeCodeSequence
    buffer = BytesIO()
    broken.save_as(buffer)
    assert dicom_errors(buffer.getvalue())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SOURCES)
def test_segments_are_the_mask(
    segmenter: Segmenter, make_dicom: MakeDicom, chest: np.ndarray, name: str, kind: Kind
) -> None:
    segmentation, content = made(segmenter, make_dicom(chest, 12, **SOURCES[name]), kind)
    found = lungs(content)
    assert list(found) == ["Right lung", "Left lung"]
    np.testing.assert_array_equal(found["Right lung"] | found["Left lung"], segmentation.mask)
    assert not (found["Right lung"] & found["Left lung"]).any()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("orientation", "at_left"), [(None, "Right lung"), ("L", "Right lung"), ("R", "Left lung")])
def test_the_patients_right_is_at_the_images_left_unless_the_header_says_otherwise(
    segmenter: Segmenter, make_dicom: MakeDicom, chest: np.ndarray, kind: Kind, orientation: str | None, at_left: str
) -> None:
    attributes = STUDY if orientation is None else {**STUDY, "PatientOrientation": [orientation, "F"]}
    _, content = made(segmenter, make_dicom(chest, 12, **attributes), kind)
    columns = {name: mask.nonzero()[1].mean() for name, mask in lungs(content).items()}
    assert min(columns, key=columns.__getitem__) == at_left


@pytest.mark.parametrize("kind", KINDS)
def test_one_lung_is_one_segment(segmenter: Segmenter, make_dicom: MakeDicom, chest: np.ndarray, kind: Kind) -> None:
    half = chest.copy()
    half[:, :48] = 3000
    segmentation, content = made(segmenter, make_dicom(half, 12, **STUDY), kind)
    found = lungs(content)
    assert list(found) == ["Left lung"]
    np.testing.assert_array_equal(found["Left lung"], segmentation.mask)


def test_one_lung_is_right_by_dciodvfy(
    segmenter: Segmenter, make_dicom: MakeDicom, chest: np.ndarray, dicom_errors: Any
) -> None:
    half = chest.copy()
    half[:, 48:] = 3000
    _, content = made(segmenter, make_dicom(half, 12, **STUDY))
    assert dicom_errors(content) == []


@pytest.mark.parametrize("kind", KINDS)
def test_no_lung_is_no_segmentation(segmenter: Segmenter, make_dicom: MakeDicom, chest: np.ndarray, kind: Kind) -> None:
    dataset = make_dicom(chest, 12, **STUDY)
    empty = replace(segmenter(dataset), mask=np.zeros(chest.shape, bool))
    with pytest.raises(InputError, match="no lung was found"):
        segmentation_file(empty, source_header(dataset), ALGORITHM, kind)


@pytest.mark.parametrize("kind", KINDS)
def test_segments_are_coded_as_the_standards_own_lists_have_it(
    segmenter: Segmenter, make_dicom: MakeDicom, chest: np.ndarray, kind: Kind
) -> None:
    seg = read(made(segmenter, make_dicom(chest, 12, **STUDY), kind)[1])
    sides = {"Right lung": codes.cid244.Right, "Left lung": codes.cid244.Left}
    for number in seg.segment_numbers:
        segment = seg.get_segment_description(number)
        assert segment.segmented_property_category == codes.cid7150.AnatomicalStructure
        assert segment.segmented_property_type == codes.SCT.Lung
        assert segment.SegmentAlgorithmType == "AUTOMATIC"
        (modifier,) = segment.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence
        side = sides[segment.segment_label]
        assert (modifier.CodeValue, modifier.CodingSchemeDesignator) == (side.value, side.scheme_designator)
        (algorithm,) = segment.SegmentationAlgorithmIdentificationSequence
        assert algorithm.AlgorithmName == "darkness"
        assert algorithm.AlgorithmVersion == __version__
        assert "ab" * 32 in algorithm.AlgorithmParameters
        assert algorithm.AlgorithmFamilyCodeSequence[0].CodeValue == codes.cid7162.ArtificialIntelligence.value


def test_labels_are_numbers_in_one_frame(segmenter: Segmenter, make_dicom: MakeDicom, chest: np.ndarray) -> None:
    segmentation, content = made(segmenter, make_dicom(chest, 12, **STUDY), "labelmap")
    seg = read(content)
    assert seg.SegmentationType == "LABELMAP"
    assert seg.NumberOfFrames == 1
    assert set(np.unique(seg.pixel_array)) == {0, 1, 2}
    np.testing.assert_array_equal(seg.pixel_array > 0, segmentation.mask)


@pytest.mark.parametrize("name", ["full", "private class", "computed tomography"])
def test_object_is_filed_beside_its_source(
    segmenter: Segmenter, make_dicom: MakeDicom, chest: np.ndarray, name: str
) -> None:
    dataset = make_dicom(chest, 12, **SOURCES[name])
    seg = read(made(segmenter, dataset)[1])
    assert seg.StudyInstanceUID == "1.2.3"
    assert seg.SeriesInstanceUID != "1.2.3.4"
    assert (seg.PatientName, seg.PatientID) == (dataset.PatientName, dataset.PatientID)
    assert seg.get("StudyDate") == dataset.get("StudyDate", "")
    assert source_of(seg) == "1.2.3.4.5"
    referenced = [element.value for element in seg.iterall() if element.keyword == "ReferencedSOPClassUID"]
    assert referenced
    assert set(referenced) == {dataset.SOPClassUID}
    assert "FrameOfReferenceUID" not in seg


def test_text_beyond_ascii_is_utf_8(segmenter: Segmenter, make_dicom: MakeDicom, chest: np.ndarray) -> None:
    seg = read(made(segmenter, make_dicom(chest, 12, **SOURCES["umlauts and kanji"]))[1])
    assert seg.SpecificCharacterSet == "ISO_IR 192"
    assert seg.PatientName == "Yamada^Tarou=山田^太郎"
    assert "SpecificCharacterSet" not in read(made(segmenter, make_dicom(chest, 12, **STUDY))[1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_repeat_is_the_same_file_on_another_day(
    segmenter: Segmenter, make_dicom: MakeDicom, chest: np.ndarray, kind: Kind
) -> None:
    dataset = make_dicom(chest, 12, **SOURCES["full"])
    first = made(segmenter, dataset, kind)[1]
    time.sleep(1.1)
    assert made(segmenter, dataset, kind)[1] == first
    written = dcmread(BytesIO(first))
    assert (written.ContentDate, written.ContentTime) == ("20200101", "101112")
    dates = [element.keyword for element in written.iterall() if element.VR in ("DA", "DT", "TM") and element.value]
    assert set(dates) == {"ContentDate", "ContentTime", "StudyDate", "StudyTime", "PatientBirthDate"}


def test_whatever_differs_has_another_uid(segmenter: Segmenter, make_dicom: MakeDicom, chest: np.ndarray) -> None:
    dataset = make_dicom(chest, 12, **STUDY)
    segmentation, header = segmenter(dataset), source_header(dataset)
    eroded = replace(segmentation, mask=segmentation.mask & np.roll(segmentation.mask, 1, axis=0))
    files = [
        segmentation_file(segmentation, header, ALGORITHM),
        segmentation_file(segmentation, header, ALGORITHM, "labelmap"),
        segmentation_file(segmentation, header, replace(ALGORITHM, sha256="cd" * 32)),
        segmentation_file(segmentation, replace(header, sop_instance="1.2.3.4.6"), ALGORITHM),
        segmentation_file(eroded, header, ALGORITHM),
    ]
    datasets = [dcmread(BytesIO(content)) for content in files]
    for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
        uids = {UID(dataset[keyword].value) for dataset in datasets}
        assert len(uids) == len(files)
        assert all(uid.is_valid for uid in uids)


def test_a_name_that_dicom_cannot_write_is_made_writable(
    segmenter: Segmenter, make_dicom: MakeDicom, chest: np.ndarray, dicom_errors: Any
) -> None:
    dataset = make_dicom(chest, 12, **STUDY, Modality="CR")
    dataset.SOPClassUID = ComputedRadiographyImageStorage
    algorithm = replace(ALGORITHM, name="naïve\\model\n" + "x" * 80)
    content = segmentation_file(segmenter(dataset), source_header(dataset), algorithm)
    assert dicom_errors(content) == []
    assert dcmread(BytesIO(content)).ManufacturerModelName == "na_ve_model_" + "x" * 52
