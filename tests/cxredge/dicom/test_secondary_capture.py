"""Secondary captures: the radiograph with contours, right by dciodvfy, the same again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset

from cxredge import Radiograph, Segmenter
from cxredge.algorithm import Algorithm
from cxredge.contours import CONTOUR_COLOUR
from cxredge.dicom.secondary_capture import LONGEST_SIDE, secondary_capture_file
from cxredge.dicom.source import source_header

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom, about values that are wrong on purpose

MakeDicom = Callable[..., Dataset]
ALGORITHM = Algorithm("darkness", "ab" * 32, "int8", "a_seg")
STUDY = {"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4", "SOPInstanceUID": "1.2.3.4.5"}
SOURCES: dict[str, dict[str, Any]] = {
    "bare": {},
    "full": {
        **STUDY,
        "StudyDate": "20200101",
        "StudyTime": "101112",
        "PatientSex": "F",
        "PatientAge": "079Y",
        "BurnedInAnnotation": "NO",
        "PatientOrientation": ["L", "F"],
        "ImagerPixelSpacing": [0.5, 0.2],
    },
    "wrong": {
        "StudyInstanceUID": "not a UID",
        "SOPInstanceUID": "x",
        "PatientSex": "?",
        "PatientAge": "81",
        "StudyDate": "20209999",
        "PatientOrientation": ["UP", "DOWN"],
        "PixelSpacing": [0, 0],
    },
    "kanji": {**STUDY, "SpecificCharacterSet": "ISO_IR 192", "PatientName": "Yamada^Tarou=山田^太郎"},
    "lossy": {**STUDY, "LossyImageCompression": "01"},
    "calibrated": {**STUDY, "PixelSpacing": [0.143, 0.15], "PixelSpacingCalibrationType": "FIDUCIAL"},
}


def made(segmenter: Segmenter, dataset: Dataset) -> bytes:
    return secondary_capture_file(segmenter(dataset), source_header(dataset), ALGORITHM)


def read(content: bytes) -> Dataset:
    return dcmread(BytesIO(content))


@pytest.mark.parametrize("name", SOURCES)
def test_dciodvfy_finds_no_error(
    segmenter: Segmenter, make_dicom: MakeDicom, chest: np.ndarray, name: str, dicom_errors: Any
) -> None:
    assert dicom_errors(made(segmenter, make_dicom(chest, 12, **SOURCES[name]))) == []


def test_picture_is_the_grey_radiograph_with_a_contour(
    segmenter: Segmenter, make_dicom: MakeDicom, chest: np.ndarray
) -> None:
    rgb = read(made(segmenter, make_dicom(chest, 12, **STUDY))).pixel_array
    assert rgb.shape == (*chest.shape, 3)
    contour = (rgb == CONTOUR_COLOUR).all(axis=2)
    assert contour.any()
    grey = rgb[~contour]
    assert (grey == grey[:, :1]).all()
    expected = 255 * (chest - float(chest.min())) / (float(chest.max()) - chest.min())
    assert np.abs(rgb[..., 0].astype(float) - expected)[~contour].max() <= 1.5


def test_a_large_radiograph_is_scaled_down_and_its_spacing_with_it(
    segmenter: Segmenter, make_dicom: MakeDicom, chest: np.ndarray
) -> None:
    large = np.kron(chest, np.ones((25, 30), np.uint16))
    sc = read(made(segmenter, make_dicom(large, 12, **STUDY, ImagerPixelSpacing=[0.1, 0.2])))
    assert max(sc.Rows, sc.Columns) == LONGEST_SIDE
    for spacing, drawn, side, given in zip(
        sc.PixelSpacing, (sc.Rows, sc.Columns), large.shape, (0.1, 0.2), strict=True
    ):
        assert float(spacing) * drawn == pytest.approx(given * side)


@pytest.mark.parametrize(
    ("name", "spacing", "calibration"),
    [("full", [0.5, 0.2], None), ("wrong", None, None), ("calibrated", [0.143, 0.15], "GEOMETRY")],
)
def test_spacing_keeps_its_plane(
    segmenter: Segmenter,
    make_dicom: MakeDicom,
    chest: np.ndarray,
    name: str,
    spacing: list[float] | None,
    calibration: str | None,
) -> None:
    sc = read(made(segmenter, make_dicom(chest, 12, **SOURCES[name])))
    assert sc.get("PixelSpacing") == spacing
    assert sc.get("PixelSpacingCalibrationType") == calibration


@pytest.mark.parametrize("burned_in", ["YES", "NO", None])
def test_identity_in_the_pixels_is_what_the_source_says(
    segmenter: Segmenter, make_dicom: MakeDicom, chest: np.ndarray, burned_in: str | None
) -> None:
    attributes = STUDY if burned_in is None else {**STUDY, "BurnedInAnnotation": burned_in}
    assert read(made(segmenter, make_dicom(chest, 12, **attributes))).get("BurnedInAnnotation") == burned_in


def test_object_is_filed_beside_its_source_and_refers_to_it(
    segmenter: Segmenter, make_dicom: MakeDicom, chest: np.ndarray
) -> None:
    dataset = make_dicom(chest, 12, **SOURCES["full"])
    sc = read(made(segmenter, dataset))
    assert (sc.StudyInstanceUID, sc.PatientName, sc.PatientID) == ("1.2.3", dataset.PatientName, dataset.PatientID)
    assert sc.SeriesInstanceUID != dataset.SeriesInstanceUID
    (reference,) = sc.SourceImageSequence
    assert reference.ReferencedSOPInstanceUID == "1.2.3.4.5"
    assert reference.ReferencedSOPClassUID == dataset.SOPClassUID
    assert list(sc.PatientOrientation) == ["L", "F"]
    assert "ab" * 32 in sc.DerivationDescription
    assert sc.Manufacturer == "cxredge"


def test_loss_of_the_source_is_told(segmenter: Segmenter, make_dicom: MakeDicom, chest: np.ndarray) -> None:
    assert read(made(segmenter, make_dicom(chest, 12, **SOURCES["lossy"]))).LossyImageCompression == "01"
    assert read(made(segmenter, make_dicom(chest, 12, **STUDY))).LossyImageCompression == "00"


def test_no_lung_is_a_picture_without_a_contour(
    segmenter: Segmenter, make_dicom: MakeDicom, chest: np.ndarray, dicom_errors: Any
) -> None:
    dataset = make_dicom(chest, 12, **STUDY)
    empty = replace(segmenter(dataset), mask=np.zeros(chest.shape, bool))
    content = secondary_capture_file(empty, source_header(dataset), ALGORITHM)
    assert dicom_errors(content) == []
    assert not (read(content).pixel_array == CONTOUR_COLOUR).all(axis=2).any()


def test_both_polarities_give_one_picture(segmenter: Segmenter, make_dicom: MakeDicom, chest: np.ndarray) -> None:
    inverted = make_dicom(4095 - chest, 12, **STUDY, PhotometricInterpretation="MONOCHROME1")
    assert made(segmenter, inverted) == made(segmenter, make_dicom(chest, 12, **STUDY))


def test_a_repeat_is_the_same_file_later(segmenter: Segmenter, make_dicom: MakeDicom, chest: np.ndarray) -> None:
    dataset = make_dicom(chest, 12, **SOURCES["full"])
    first = made(segmenter, dataset)
    time.sleep(1.1)
    assert made(segmenter, dataset) == first


def test_a_radiograph_that_is_not_square_keeps_its_sides(make_dicom: MakeDicom, segmenter: Segmenter) -> None:
    pixels = np.tile(np.arange(60, dtype=np.uint16), (100, 1))
    assert Radiograph(pixels).shape == (100, 60)
    sc = read(made(segmenter, make_dicom(pixels, 12, **STUDY)))
    assert (sc.Rows, sc.Columns) == (100, 60)
