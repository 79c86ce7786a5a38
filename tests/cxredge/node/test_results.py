"""The objects that a node makes of a radiograph: what cannot be made is left out, and nothing at all is an error."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage, SegmentationStorage

from cxredge import Segmenter
from cxredge.algorithm import Algorithm
from cxredge.errors import InputError
from cxredge.node.results import result_objects
from cxredge.runs.formats import Format

ALGORITHM = Algorithm("darkness", "ab" * 32, "fp32", "a_seg")
BOTH: tuple[Format, ...] = ("dicom-seg", "dicom-sc")


@pytest.fixture
def make_file(make_dicom: Callable[..., Dataset], tmp_path: Path) -> Callable[[np.ndarray], Path]:
    def make(pixels: np.ndarray) -> Path:
        path = tmp_path / "radiograph.dcm"
        make_dicom(pixels, 12).save_as(path, enforce_file_format=True)
        return path

    return make


def classes(path: Path, segmenter: Segmenter, formats: tuple[Format, ...]) -> list[str]:
    made = result_objects(path, segmenter(path), ALGORITHM, formats)
    return [str(dcmread(BytesIO(content)).SOPClassUID) for content in made]


def test_lungs_become_an_object_of_each_kind(
    chest: np.ndarray, segmenter: Segmenter, make_file: Callable[[np.ndarray], Path]
) -> None:
    path = make_file(chest)
    assert classes(path, segmenter, BOTH) == [SegmentationStorage, SecondaryCaptureImageStorage]


def test_without_lungs_the_segmentation_is_left_out_and_refused_where_it_is_all_that_was_asked_for(
    segmenter: Segmenter, make_file: Callable[[np.ndarray], Path]
) -> None:
    white = np.full((256, 256), 4000, np.uint16)
    white[0, 0] = 0  # one dark pixel of the sixteen that become one
    path = make_file(white)
    assert not segmenter(path).mask.any()
    assert classes(path, segmenter, BOTH) == [SecondaryCaptureImageStorage]
    with pytest.raises(InputError, match="no lung"):
        classes(path, segmenter, ("dicom-seg",))
