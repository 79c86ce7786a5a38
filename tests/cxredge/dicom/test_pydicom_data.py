"""Every file that pydicom brings for its own tests: segmented, flagged or refused with a reason, and nothing else."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from pydicom.data import data_manager

from cxredge import Segmentation, Segmenter
from cxredge.dicom.prefix import HEAD_LENGTH, is_dicom, lacks_preamble
from cxredge.errors import InputError

ROOT = Path(data_manager.DATA_ROOT)
SECONDS = 5.0
REASONS = (
    "holds no image",
    "frames, a radiograph has one",
    "is a colour image",
    "is too small",
    "bits a pixel",
    "pixels cannot be decoded",
    "is damaged",
    "is a damaged DICOM file",
    "pixels, which is none",
    "without which its pixels cannot be read",
    "is a DICOMDIR",
)
CROSS_SECTIONS = ("CT_small", "MR_small", "693_J2KI", "JPEG2000.dcm", "J2K_pixelrep", "examples_overlay")


def dicom_files() -> list[Path]:
    files = []
    for path in sorted(ROOT.rglob("*")):
        if path.is_file():
            with path.open("rb") as file:
                head = file.read(HEAD_LENGTH)
            if is_dicom(head) or lacks_preamble(head):
                files.append(path)
    return files


def outcome(segmenter: Segmenter, path: Path) -> Segmentation | InputError:
    try:
        return segmenter(path)
    except InputError as error:
        return error


def test_there_are_files_to_read() -> None:
    assert len(dicom_files()) > 150


@pytest.mark.filterwarnings("ignore")
def test_every_file_is_segmented_flagged_or_refused_with_a_reason(segmenter: Segmenter) -> None:
    segmented = 0
    for path in dicom_files():
        started = time.monotonic()
        found = outcome(segmenter, path)
        if isinstance(found, InputError):
            assert any(reason in found.reason for reason in REASONS), f"{path}: {found.reason}"
            assert "\n" not in found.reason
        else:
            segmented += 1
            assert found.mask.shape == found.radiograph.shape
            if path.name.startswith(CROSS_SECTIONS):
                assert "other_modality" in found.radiograph.notes, path.name
        assert time.monotonic() - started < SECONDS, path.name
    assert segmented >= 25


@pytest.mark.filterwarnings("ignore")
def test_one_image_of_pydicoms_in_all_its_encodings_gives_one_mask(segmenter: Segmenter) -> None:
    import numpy as np

    masks = {path.name: segmenter(path).mask for path in (ROOT / "test_files").glob("MR_small*.dcm")}
    assert len(masks) == 8
    for name, mask in masks.items():
        np.testing.assert_array_equal(mask, masks["MR_small.dcm"], err_msg=name)
