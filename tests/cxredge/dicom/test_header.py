"""What the header says about spacing and view: precedence, planes, notes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from cxredge import Segmenter
from cxredge.dicom.reading import radiograph_from_dataset

PIXELS = np.arange(64 * 48, dtype=np.uint16).reshape(64, 48)
CT = "1.2.840.10008.5.1.4.1.1.2"
MAMMOGRAPHY = "1.2.840.10008.5.1.4.1.1.1.2"
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"

IMAGER, PIXEL, SCANNED = "ImagerPixelSpacing", "PixelSpacing", "NominalScannedPixelSpacing"
FACTOR, TYPE = "EstimatedRadiographicMagnificationFactor", "PixelSpacingCalibrationType"


@pytest.mark.parametrize(
    ("attributes", "spacing", "plane"),
    [
        ({}, None, "unknown"),
        ({IMAGER: [0.2, 0.1]}, (0.2, 0.1), "detector"),
        ({SCANNED: [0.2, 0.1]}, (0.2, 0.1), "detector"),
        ({PIXEL: [0.2, 0.1]}, (0.2, 0.1), "unknown"),
        ({PIXEL: [0.2, 0.1], TYPE: "FIDUCIAL"}, (0.2, 0.1), "patient"),
        ({IMAGER: [0.2, 0.2], PIXEL: [0.2, 0.2]}, (0.2, 0.2), "detector"),
        ({IMAGER: [0.2, 0.2], PIXEL: [0.18, 0.18]}, (0.18, 0.18), "patient"),
        ({IMAGER: [0.2, 0.2], PIXEL: [0.4, 0.4]}, (0.2, 0.2), "detector"),
        ({IMAGER: [0.2, 0.2], PIXEL: [0.4, 0.4], TYPE: "GEOMETRY"}, (0.4, 0.4), "patient"),
        ({SCANNED: [0.2, 0.2], PIXEL: [0.18, 0.18]}, (0.18, 0.18), "patient"),
        ({SCANNED: [0.2, 0.2], PIXEL: [0.2, 0.2]}, (0.2, 0.2), "detector"),
        ({IMAGER: [0.2, 0.1], FACTOR: 1.25}, (0.16, 0.08), "patient"),
        ({IMAGER: [0.2, 0.2], PIXEL: [0.2, 0.2], FACTOR: 1.25}, (0.16, 0.16), "patient"),
        ({IMAGER: [0.2, 0.2], PIXEL: [0.15, 0.15], FACTOR: 1.25}, (0.15, 0.15), "patient"),
        ({IMAGER: [0.2, 0.2], FACTOR: 0.5}, (0.2, 0.2), "detector"),
        ({IMAGER: [0.2, 0.2], FACTOR: 0}, (0.2, 0.2), "detector"),
        ({IMAGER: [0.2, 0.2], FACTOR: 90}, (0.2, 0.2), "detector"),
        ({PIXEL: [0.2, 0.2], FACTOR: 1.25}, (0.2, 0.2), "unknown"),
        ({IMAGER: [200, 200], PIXEL: [0.2, 0.2]}, (0.2, 0.2), "unknown"),
        ({IMAGER: [1e-6, 1e-6]}, None, "unknown"),
        ({IMAGER: [0.2, 0.2], PIXEL: [0, 0], TYPE: "GEOMETRY"}, (0.2, 0.2), "detector"),
    ],
)
def test_spacing_and_its_plane(
    attributes: dict[str, Any], spacing: tuple[float, float] | None, plane: str, make_dicom: Any
) -> None:
    read = radiograph_from_dataset(make_dicom(PIXELS, 12, **attributes))
    assert read.spacing == (None if spacing is None else pytest.approx(spacing))
    assert read.spacing_plane == plane


def code(value: str, scheme: str = "SCT", meaning: str = "") -> list[Dataset]:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return [item]


@pytest.mark.parametrize(
    ("attributes", "notes"),
    [
        ({}, ()),
        ({"Modality": "DX", "BodyPartExamined": "CHEST", "ViewPosition": "PA", "PatientOrientation": ["L", "F"]}, ()),
        ({"Modality": "CR", "BodyPartExamined": "CHEST PA", "ViewPosition": "AP"}, ()),
        ({"Modality": "RG", "BodyPartExamined": "TORAX", "ViewPosition": ""}, ()),
        ({"Modality": "OT", "SOPClassUID": SECONDARY_CAPTURE}, ()),
        ({"Modality": "OT", "SOPClassUID": SECONDARY_CAPTURE + ".2"}, ()),
        ({"SOPClassUID": "1.2.3.4.5"}, ()),
        ({"Modality": ""}, ()),
        ({"Modality": "CT"}, ("other_modality",)),
        ({"Modality": "MR"}, ("other_modality",)),
        ({"Modality": "us "}, ("other_modality",)),
        ({"SOPClassUID": CT}, ("other_modality",)),
        ({"Modality": "DX", "SOPClassUID": MAMMOGRAPHY}, ("other_modality",)),
        ({"BodyPartExamined": "KNEE"}, ("not_chest",)),
        ({"BodyPartExamined": "abdomen"}, ("not_chest",)),
        ({"BodyPartExamined": "TSPINE"}, ("not_chest",)),
        ({"BodyPartExamined": "THORACIC SPINE"}, ("not_chest",)),
        ({"BodyPartExamined": "THORAX"}, ()),
        ({"BodyPartExamined": "CHESTABDOMEN"}, ()),
        ({"BodyPartExamined": "UNKNOWN"}, ()),
        ({"BodyPartExamined": ""}, ()),
        ({"AnatomicRegionSequence": code("816094009")}, ()),
        ({"AnatomicRegionSequence": code("51185008")}, ()),
        ({"AnatomicRegionSequence": code("T-D3000", "SRT")}, ()),
        ({"AnatomicRegionSequence": code("XX-1", "99LOCAL", "Chest and ribs bedside")}, ("not_chest",)),
        ({"AnatomicRegionSequence": code("XX-1", "99LOCAL", "Thorax")}, ()),
        ({"AnatomicRegionSequence": code("72696002")}, ("not_chest",)),
        ({"AnatomicRegionSequence": code("T-D9200", "SRT")}, ("not_chest",)),
        ({"AnatomicRegionSequence": code("72696002"), "BodyPartExamined": "CHEST"}, ()),
        ({"AnatomicRegionSequence": []}, ()),
        ({"AnatomicRegionSequence": [Dataset()]}, ()),
        ({"ViewPosition": "LL"}, ("lateral",)),
        ({"ViewPosition": "RL"}, ("lateral",)),
        ({"ViewPosition": "LATERAL"}, ("lateral",)),
        ({"ViewPosition": "LLD"}, ()),
        ({"ViewPosition": "RLD"}, ()),
        ({"ViewPosition": "RLO"}, ("oblique",)),
        ({"ViewPosition": "LAO"}, ("oblique",)),
        ({"ViewCodeSequence": code("272479007")}, ()),
        ({"ViewCodeSequence": code("R-10206", "SRT")}, ()),
        ({"ViewCodeSequence": code("399173006")}, ("lateral",)),
        ({"ViewCodeSequence": code("R-10232", "SRT")}, ("lateral",)),
        ({"ViewCodeSequence": code("399067008")}, ("lateral",)),
        ({"ViewCodeSequence": code("R-10212", "SRT")}, ("oblique",)),
        ({"PatientOrientation": ["A", "F"]}, ("lateral",)),
        ({"PatientOrientation": ["P", "F"]}, ("lateral",)),
        ({"PatientOrientation": ["R", "F"]}, ()),
        ({"PatientOrientation": ["LH", "FL"]}, ()),
        ({"PatientOrientation": ["F", "R"]}, ("rotated",)),
        ({"PatientOrientation": ["R", "H"]}, ("rotated",)),
        ({"PatientOrientation": "L"}, ()),
        ({"PatientOrientation": ["X", "Y"]}, ()),
        ({"PatientOrientation": ["L", "F", "A"]}, ()),
        (
            {"Modality": "CT", "BodyPartExamined": "KNEE", "ViewPosition": "LL"},
            ("other_modality", "not_chest", "lateral"),
        ),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_notes_say_what_speaks_against_a_frontal_chest_radiograph(
    attributes: dict[str, Any], notes: tuple[str, ...], make_dicom: Any
) -> None:
    assert radiograph_from_dataset(make_dicom(PIXELS, 12, **attributes)).notes == notes


@pytest.mark.parametrize(
    ("orientation", "kept", "flipped"),
    [
        (["L", "F"], ("L", "F"), False),
        (["R", "F"], ("R", "F"), True),
        (["LH", "FL"], ("LH", "FL"), False),
        (["A", "F"], ("A", "F"), None),
        ("", None, None),
        (None, None, None),
        (["L"], None, None),
    ],
)
def test_orientation_tells_which_side_of_the_image_is_the_patients_left(
    orientation: Any, kept: tuple[str, str] | None, flipped: bool | None, make_dicom: Any
) -> None:
    read = radiograph_from_dataset(make_dicom(PIXELS, 12, PatientOrientation=orientation))
    assert read.orientation == kept
    assert read.flipped is flipped


def test_nothing_that_identifies_a_patient_is_kept(make_dicom: Any) -> None:
    dataset = make_dicom(PIXELS, 12, AccessionNumber="ACC-77", PatientBirthDate="19700101", StudyDate="20260101")
    text = repr(radiograph_from_dataset(dataset))
    assert not any(secret in text for secret in ("Secret", "4711", "ACC-77", "19700101", "20260101"))


def test_notes_are_flags_of_the_result(chest: np.ndarray, make_dicom: Any, segmenter: Segmenter) -> None:
    dataset = make_dicom(chest, 12, ViewPosition="LL", BodyPartExamined="KNEE")
    assert segmenter(dataset).flags[:2] == ("not_chest", "lateral")
