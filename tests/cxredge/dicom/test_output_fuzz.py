"""Whatever stands in a source's header, the objects are right by dciodvfy, or there is none for a reason."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.datadict import tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset
from pydicom.uid import ImplicitVRLittleEndian

from cxredge import Segmenter
from cxredge.algorithm import Algorithm
from cxredge.dicom.secondary_capture import secondary_capture_file
from cxredge.dicom.segmentation import segmentation_file
from cxredge.dicom.source import KEYWORDS, source_header
from cxredge.errors import InputError

ALGORITHM = Algorithm("darkness", "ab" * 32, "int8", "a_seg")
ANY = sorted(set(KEYWORDS) - {"Rows", "Columns", "SpecificCharacterSet"})
CHARACTER_SETS = st.sampled_from(
    ["", "ISO_IR 6", "ISO_IR 100", "ISO_IR 192", "GB18030", ["", "ISO 2022 IR 87"], "NONE"]
)
TEXTS = st.one_of(
    st.text(st.characters(blacklist_categories=["Cs"]), max_size=70).map(str.encode),
    st.text("0123456789.:^=\\ ABCYMFO-+eE", max_size=66).map(str.encode),
    st.sampled_from([b"", b"01", b"YES", b"NO", b"0", b"1.2.3", b"20200101", b"064Y"]),
    st.binary(max_size=20),
)
HEADERS = st.dictionaries(st.sampled_from(ANY), TEXTS, max_size=8)


def with_header(dataset: Dataset, values: dict[str, bytes], character_set: str | list[str]) -> Dataset:
    """The data set with attributes that have these bytes, as a file with them is read."""
    for keyword, value in values.items():
        tag = tag_for_keyword(keyword)
        assert tag is not None
        dataset[tag] = DataElement(tag, "OB", value)  # no VR is written, so that any bytes can be
    dataset.SpecificCharacterSet = character_set
    dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    buffer = BytesIO()
    dataset.save_as(buffer)
    again = dcmread(BytesIO(buffer.getvalue()), force=True)
    again.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    return again


@pytest.mark.filterwarnings("ignore")  # pydicom's, about wrong values
@pytest.mark.parametrize("examples", [25, pytest.param(300, marks=pytest.mark.slow)])
def test_any_header_gives_right_objects(
    segmenter: Segmenter, make_dicom: Callable[..., Dataset], chest: np.ndarray, dicom_errors: Any, examples: int
) -> None:
    segmentation = segmenter(chest)

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(HEADERS, CHARACTER_SETS)
    def holds(values: dict[str, bytes], character_set: str | list[str]) -> None:
        header = with_header(make_dicom(chest, 12), values, character_set)
        if not values.get("SOPInstanceUID", b"1").strip(b" \0"):
            with pytest.raises(InputError, match="no SOP Instance UID"):
                source_header(header)
            return
        source = source_header(header)
        for made in (segmentation_file, secondary_capture_file):
            wrong = dicom_errors(made(segmentation, source, ALGORITHM))
            if not all(value.isascii() for value in source.values.values()):  # it counts bytes, PS3.5, 6.2 characters
                wrong = [line for line in wrong if "Length invalid for this VR" not in line]
            assert wrong == []

    holds()
