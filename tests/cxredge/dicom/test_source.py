"""What is taken over from a source: what is valid stays, what is wrong is repaired, emptied or dropped."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000, UID, JPEGBaseline8Bit, SecondaryCaptureImageStorage

from cxredge import Radiograph, read_radiograph
from cxredge.dicom.source import (
    DROPPED,
    EMPTIED,
    MIDNIGHT,
    UNKNOWN_DATE,
    Lossy,
    derived_uid,
    read_source_header,
    source_header,
    valid_date,
    valid_time,
)
from cxredge.errors import InputError

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")  # pydicom, about values that are wrong on purpose

MakeDicom = Callable[..., Dataset]
GOOD = {
    "PatientName": "Müller^Käthe",
    "PatientID": "4711",
    "PatientBirthDate": "19400305",
    "PatientSex": "F",
    "StudyDate": "20040826",
    "StudyTime": "185059.5",
    "StudyID": "S1",
    "AccessionNumber": "A1",
    "ReferringPhysicianName": "Ward^A",
    "IssuerOfPatientID": "Hospital",
    "PatientAge": "064Y",
    "StudyDescription": "THORAX",
    "BurnedInAnnotation": "NO",
}
WRONG = {
    "PatientName": "A" * 65,
    "PatientID": "4711\n",
    "PatientBirthDate": "19401350",
    "PatientSex": "FEMALE",
    "StudyDate": "yesterday",
    "StudyTime": "25:00",
    "StudyID": "S" * 17,
    "AccessionNumber": ["A", "B"],
    "ReferringPhysicianName": "a=b=c=d",
    "IssuerOfPatientID": "H" * 65,
    "PatientAge": "81",
    "StudyDescription": "D\x1b",
    "BurnedInAnnotation": "PERHAPS",
    "PatientIdentityRemoved": "MAYBE",
    "DeidentificationMethod": "x" * 65,
}


@pytest.fixture
def source(make_dicom: MakeDicom, chest: np.ndarray) -> Callable[..., Dataset]:
    """``source(**attributes)``: a data set with one radiograph, in a study."""

    def make(**attributes: Any) -> Dataset:
        return make_dicom(chest, 12, **{"StudyInstanceUID": "1.2.3", "SeriesInstanceUID": "1.2.3.4", **attributes})

    return make


def test_what_is_valid_is_taken_over_as_it_is(source: Any) -> None:
    dataset = source(**GOOD)
    header = source_header(dataset)
    assert header.values == GOOD
    assert (header.study, header.series) == ("1.2.3", "1.2.3.4")
    assert header.sop_instance == dataset.SOPInstanceUID
    assert header.sop_class == dataset.SOPClassUID
    assert header.changed == ()


def test_what_is_wrong_is_emptied_or_dropped(source: Any) -> None:
    header = source_header(source(**WRONG))
    assert header.values == dict.fromkeys(EMPTIED, "")
    assert set(header.changed) == {*EMPTIED, *DROPPED}


def test_what_is_absent_is_empty_and_no_change(source: Any) -> None:
    dataset = source()
    del dataset.PatientName, dataset.PatientID
    header = source_header(dataset)
    assert header.values == dict.fromkeys(EMPTIED, "")
    assert header.changed == ()


def test_nothing_else_is_taken_over(source: Any) -> None:
    header = source_header(source(**GOOD, PatientAddress="here", OtherPatientIDs="too", ImageComments="secret"))
    assert set(header.values) <= {*EMPTIED, *DROPPED}


def test_study_that_is_absent_is_made_from_the_image(source: Any) -> None:
    dataset = source()
    del dataset.StudyInstanceUID
    header = source_header(dataset)
    assert UID(header.study).is_valid
    assert header.study.startswith("2.25.")
    assert header == source_header(dataset)
    assert header.changed == ("StudyInstanceUID",)


def test_images_of_one_study_with_a_wrong_uid_stay_together(source: Any) -> None:
    first, second = (source_header(source(StudyInstanceUID="study-7", SOPInstanceUID=f"1.2.{n}")) for n in (8, 9))
    other = source_header(source(StudyInstanceUID="study-8", SOPInstanceUID="1.2.9"))
    assert first.study == second.study != other.study
    assert UID(first.study).is_valid


@pytest.mark.parametrize("wrong", ["1.2.x", "1.02.3", "1." * 40 + "1", ".1", "0", "7.1"])
def test_wrong_uids_become_valid_ones(source: Any, wrong: str) -> None:
    header = source_header(source(SOPInstanceUID=wrong, SeriesInstanceUID=wrong, StudyInstanceUID=wrong))
    assert all(UID(uid).is_valid for uid in (header.sop_instance, header.series, header.study))
    assert len({header.sop_instance, header.series, header.study}) == 3


def test_an_image_without_any_uid_is_refused(source: Any) -> None:
    dataset = source()
    del dataset.SOPInstanceUID
    with pytest.raises(InputError, match="no SOP Instance UID"):
        source_header(dataset)


def test_sop_class_is_looked_for_in_the_meta_information(source: Any) -> None:
    dataset = source()
    of_the_file = dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    del dataset.SOPClassUID
    assert source_header(dataset).sop_class == of_the_file
    del dataset.file_meta.MediaStorageSOPClassUID
    assert source_header(dataset).sop_class == SecondaryCaptureImageStorage


def test_an_image_without_identity_says_that_of_itself_with_a_method(source: Any) -> None:
    values = source_header(source(PatientIdentityRemoved="YES")).values
    assert (values["PatientIdentityRemoved"], values["DeidentificationMethod"]) == ("YES", "As the source image")
    values = source_header(source(PatientIdentityRemoved="YES", DeidentificationMethod="by hand")).values
    assert values["DeidentificationMethod"] == "by hand"


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({}, (UNKNOWN_DATE, MIDNIGHT)),
        ({"StudyDate": "20200101", "StudyTime": "10"}, ("20200101", "10")),
        (
            {"StudyDate": "20200101", "AcquisitionDate": "1993.02.24", "AcquisitionTime": "17:58:00"},
            ("19930224", "175800"),
        ),
        ({"ContentDate": "nonsense", "ContentTime": "12", "SeriesDate": "20210101"}, ("20210101", MIDNIGHT)),
    ],
)
def test_moment_is_the_first_that_the_source_knows(
    source: Any, attributes: dict[str, str], expected: tuple[str, str]
) -> None:
    assert source_header(source(**attributes)).moment == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("20240229", "20240229"), ("2024.02.29", "20240229"), ("20230229", ""), ("2024.0229", ""), ("", ""), ("2024", "")],
)
def test_dates(text: str, expected: str) -> None:
    assert valid_date(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12", "12"),
        ("1234", "1234"),
        ("12:34:56.7", "123456.7"),
        ("123456.123456", "123456.123456"),
        ("12:3456", ""),
        ("24", ""),
        ("1260", ""),
        ("", ""),
        ("noon", ""),
    ],
)
def test_times(text: str, expected: str) -> None:
    assert valid_time(text) == expected


@pytest.mark.parametrize(
    ("attributes", "syntax", "expected"),
    [
        ({}, None, None),
        ({"LossyImageCompression": "00"}, None, None),
        ({}, JPEGBaseline8Bit, Lossy("", "ISO_10918_1")),
        ({"LossyImageCompression": "01"}, None, Lossy("", "")),
        ({"LossyImageCompression": "01", "LossyImageCompressionRatio": "10"}, JPEG2000, Lossy("10", "ISO_15444_1")),
        ({"LossyImageCompression": "01", "LossyImageCompressionMethod": "ISO_X"}, JPEG2000, Lossy("", "ISO_X")),
    ],
)
def test_lossy_compression_is_never_forgotten(
    source: Any, attributes: dict[str, str], syntax: UID | None, expected: Lossy | None
) -> None:
    dataset = source(**attributes)
    dataset.file_meta.TransferSyntaxUID = syntax or dataset.file_meta.TransferSyntaxUID
    assert source_header(dataset).lossy == expected


def test_derived_uids_are_valid_and_tell_their_parts_apart() -> None:
    uids = {derived_uid("a", "b"), derived_uid("ab", ""), derived_uid("a", "c"), derived_uid("b", "a")}
    assert len(uids) == 4
    assert all(uid.is_valid for uid in uids)
    assert derived_uid("a", "b") == derived_uid("a", "b")


def test_a_file_that_was_replaced_meanwhile_is_not_referred_to(source: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.dcm"
    source(SOPInstanceUID="1.2.3").save_as(path, enforce_file_format=True)
    radiograph = read_radiograph(path)
    assert read_source_header(path, radiograph).sop_instance == "1.2.3"
    with pytest.raises(InputError, match=r"a\.dcm: was changed"):
        read_source_header(path, Radiograph(radiograph.pixels.T, identity="1.2.3"))
    source(SOPInstanceUID="1.2.4").save_as(path, enforce_file_format=True)
    with pytest.raises(InputError, match=r"a\.dcm: was changed"):
        read_source_header(path, radiograph)
