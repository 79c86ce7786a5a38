"""Made radiographs: believable, reproducible, and written as files that are read back as they were."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxredge import read_radiograph
from cxredge.errors import OutputError
from cxredge.preprocessing import network_input
from cxredge.radiograph import Radiograph
from cxredge.sample import IMAGE_WIDTH_MM, SAMPLES, make_radiograph, write_samples


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_samples(tmp_path_factory.mktemp("samples") / "new" / "folder")


@cache
def expected_pixels(name: str) -> np.ndarray:
    seed, height, width = SAMPLES[name]
    return make_radiograph(seed, height, width).pixels


def lung_boxes(lungs: np.ndarray) -> list[list[int]]:
    """Bounding boxes (x, y, width, height) of the lungs, from the image's left to its right."""
    count, _, stats, _ = cv2.connectedComponentsWithStats(lungs.astype(np.uint8), connectivity=4)
    return sorted(stats[label, :4].tolist() for label in range(1, count))


def test_same_seed_gives_same_radiograph() -> None:
    first, second = make_radiograph(5, 128, 128), make_radiograph(5, 128, 128)
    np.testing.assert_array_equal(first.pixels, second.pixels)
    np.testing.assert_array_equal(first.lungs, second.lungs)


def test_another_seed_gives_another_patient() -> None:
    first, second = make_radiograph(5, 128, 128), make_radiograph(6, 128, 128)
    assert (first.lungs != second.lungs).any()
    assert (first.pixels != second.pixels).mean() > 0.5


def test_patient_does_not_depend_on_image_size() -> None:
    small, large = make_radiograph(7, 128, 128), make_radiograph(7, 512, 512)
    enlarged = cv2.resize(small.lungs.astype(np.uint8), (512, 512), interpolation=cv2.INTER_LINEAR) > 0
    assert (enlarged != large.lungs).mean() < 0.02
    difference = small.pixels - cv2.resize(large.pixels, (128, 128), interpolation=cv2.INTER_AREA).astype(float)
    assert np.abs(difference).mean() < 0.03 * 4095


@pytest.mark.parametrize(("height", "width"), [(512, 512), (64, 64), (300, 220), (200, 333)])
def test_pixels_are_twelve_bits_of_the_asked_shape(height: int, width: int) -> None:
    made = make_radiograph(0, height, width)
    assert made.pixels.shape == made.lungs.shape == (height, width)
    assert made.pixels.dtype == np.uint16
    assert made.lungs.dtype == np.bool_
    assert made.pixels.max() <= 4095
    assert made.pixels.max() - made.pixels.min() > 3500


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("size", [64, 256])
def test_mask_has_a_lung_on_each_side_of_the_spine(seed: int, size: int) -> None:
    lungs = make_radiograph(seed, size, size).lungs
    boxes = lung_boxes(lungs)
    assert len(boxes) == 2
    (right_x, _, right_width, _), (left_x, _, left_width, _) = boxes
    assert right_x > 0
    assert right_x + right_width < size / 2 < left_x
    assert left_x + left_width < size
    assert 0.2 < lungs.mean() < 0.4


@pytest.mark.parametrize("seed", range(8))
def test_lungs_are_darker_than_the_mediastinum_and_brighter_than_air(seed: int) -> None:
    made = make_radiograph(seed, 256, 256)
    (right_x, _, right_width, _), (left_x, top, _, height) = lung_boxes(made.lungs)
    heart = made.pixels[top + height // 2 : top + 3 * height // 4, right_x + right_width : left_x]
    assert made.pixels[made.lungs].mean() < 0.65 * heart.mean()
    assert made.pixels[made.lungs].mean() > 4 * np.percentile(made.pixels, 1)


@pytest.mark.parametrize("seed", range(8))
def test_heart_bulges_to_the_patients_left_and_the_right_diaphragm_stands_higher(seed: int) -> None:
    lungs = make_radiograph(seed, 256, 256).lungs
    (right_x, _, right_width, _), (left_x, top, left_width, height) = lung_boxes(lungs)
    middle = (right_x + left_x + left_width) // 2
    low = lungs[top + 3 * height // 4]
    assert low[right_x : right_x + right_width].sum() > low[left_x : left_x + left_width].sum()

    def diaphragm(columns: slice) -> int:
        return int(np.flatnonzero(lungs[:, columns].any(axis=1)).max())

    reach = left_width // 5
    assert diaphragm(slice(middle - 3 * reach, middle - 2 * reach)) < diaphragm(
        slice(left_x + 3 * reach, left_x + 4 * reach)
    )


def test_ribs_cross_the_lungs() -> None:
    made = make_radiograph(0, 512, 512)
    x, y, width, height = lung_boxes(made.lungs)[0]
    strip = made.pixels[y + height // 5 : y + 3 * height // 5, x + width // 2 - 3 : x + width // 2 + 3]
    profile = strip.mean(axis=1, keepdims=True)
    ripple = (cv2.GaussianBlur(profile, (1, 9), 0) - cv2.GaussianBlur(profile, (1, 61), 0)).ravel()
    crossings = np.count_nonzero((ripple[:-1] < 0) & (ripple[1:] >= 0))
    assert crossings >= 4
    assert ripple.max() - ripple.min() > 0.05 * 4095


def test_too_small_an_image_is_refused() -> None:
    with pytest.raises(ValueError, match="too small"):
        make_radiograph(0, 512, 16)


def test_files_are_the_announced_ones(written: list[Path]) -> None:
    assert [path.name for path in written] == ["made-1.png", "made-2.png", "made-3.dcm", "made-4.dcm"]
    assert sorted(written[0].parent.iterdir()) == written


def test_png_files_keep_their_bit_depth(written: list[Path]) -> None:
    eight, sixteen = (read_radiograph(path) for path in written[:2])
    assert eight.pixels.dtype == np.uint8
    np.testing.assert_array_equal(eight.pixels, expected_pixels("made-1.png") >> 4)
    assert sixteen.pixels.dtype == np.uint16
    np.testing.assert_array_equal(sixteen.pixels, expected_pixels("made-2.png") << 4)
    assert eight.polarity == sixteen.polarity == "MONOCHROME2"


def test_dicom_files_keep_polarity_spacing_and_identity(written: list[Path]) -> None:
    bright, inverted = (read_radiograph(path) for path in written[2:])
    np.testing.assert_array_equal(bright.pixels, expected_pixels("made-3.dcm"))
    np.testing.assert_array_equal(inverted.pixels, 4095 - expected_pixels("made-4.dcm"))
    assert (bright.polarity, inverted.polarity) == ("MONOCHROME2", "MONOCHROME1")
    for radiograph in (bright, inverted):
        assert radiograph.spacing is not None
        assert radiograph.spacing[0] == radiograph.spacing[1]
        assert radiograph.spacing[1] * radiograph.shape[1] == pytest.approx(IMAGE_WIDTH_MM, rel=1e-4)
    assert bright.identity != inverted.identity


def test_inverted_file_shows_the_network_the_same_picture(written: list[Path]) -> None:
    made = Radiograph(expected_pixels("made-4.dcm"))
    np.testing.assert_array_equal(network_input(read_radiograph(written[3]), 64), network_input(made, 64))


def test_dicom_header_is_that_of_a_dx_image(written: list[Path]) -> None:
    from pydicom import dcmread
    from pydicom.uid import UID

    datasets = [dcmread(path) for path in written[2:]]
    names = [dataset.file_meta.TransferSyntaxUID.name for dataset in datasets]
    assert names == ["Explicit VR Little Endian", "RLE Lossless"]
    for dataset in datasets:
        assert dataset.SOPClassUID.name == "Digital X-Ray Image Storage - For Presentation"
        assert (dataset.Modality, dataset.BodyPartExamined, dataset.ViewPosition) == ("DX", "CHEST", "PA")
        assert (str(dataset.PatientName), dataset.PatientID) == ("Made^Radiograph", "MADE")
        assert (dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit) == (16, 12, 11)
        assert dataset.file_meta.MediaStorageSOPInstanceUID == dataset.SOPInstanceUID
        for uid in (dataset.SOPInstanceUID, dataset.StudyInstanceUID, dataset.SeriesInstanceUID):
            assert UID(uid).is_valid


def test_repeats_are_identical(written: list[Path], tmp_path: Path) -> None:
    for first, second in zip(written, write_samples(tmp_path), strict=True):
        assert first.read_bytes() == second.read_bytes()


def test_existing_file_is_never_overwritten(tmp_path: Path) -> None:
    (tmp_path / "made-3.dcm").write_text("mine")
    with pytest.raises(OutputError, match=r"made-3\.dcm already"):
        write_samples(tmp_path)
    assert (tmp_path / "made-3.dcm").read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


def test_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_samples(tmp_path / "file" / "samples")


def test_file_in_the_place_of_the_folder_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written"):
        write_samples(tmp_path / "file")
