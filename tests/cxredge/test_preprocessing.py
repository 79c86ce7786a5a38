"""The network's input: its range, its size, and its independence of how an image was stored."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from cxredge import Radiograph, Segmenter, read_radiograph
from cxredge.errors import InputError
from cxredge.preprocessing import (
    LARGEST_RANGE,
    SMALLEST_RANGE,
    common_step,
    grey_levels,
    network_input,
    network_mask,
    offset_from_black,
    resize,
)
from cxredge.radiograph import Polarity

IMAGE = st.integers(32, 70).flatmap(
    lambda height: arrays(np.int32, (height, 45), elements=st.integers(0, 1000), fill=st.integers(0, 1000))
)


def encodings(pixels: np.ndarray, folder: Path, make_dicom: Any) -> dict[str, Path]:
    """One 12-bit image, stored in every way that means the same picture."""
    Image.fromarray(pixels).save(folder / "png16.png")
    Image.fromarray(pixels).save(folder / "tiff16.tif")
    np.save(folder / "npy.npy", pixels)
    np.save(folder / "float.npy", pixels.astype(np.float64))
    np.save(folder / "int32.npy", pixels.astype(np.int32) - 70000)
    inverted = 4095 - pixels
    datasets = {
        "monochrome2": make_dicom(pixels, 12),
        "monochrome1": make_dicom(inverted, 12, PhotometricInterpretation="MONOCHROME1"),
        "rescaled": make_dicom(pixels, 12, RescaleSlope=0.25, RescaleIntercept=-1024),
        "slope": make_dicom(inverted, 12, RescaleSlope=-1, RescaleIntercept=4095),
        "signed": make_dicom(pixels.astype(np.int16) - 2048, 12),
    }
    for name, dataset in datasets.items():
        dataset.save_as(folder / f"{name}.dcm", enforce_file_format=True)
    return {path.stem: path for path in folder.iterdir()}


def test_one_image_in_any_encoding_gives_identical_inputs_and_masks(
    tmp_path: Path, phantom: np.ndarray, make_dicom: Any, segmenter: Segmenter
) -> None:
    files = encodings(phantom, tmp_path, make_dicom)
    assert len(files) == 10
    expected = network_input(Radiograph(phantom), 64)
    mask = segmenter(phantom).mask
    assert 0 < mask.mean() < 1
    for name, path in files.items():
        np.testing.assert_array_equal(network_input(read_radiograph(path), 64), expected, err_msg=name)
        np.testing.assert_array_equal(segmenter(path).mask, mask, err_msg=name)


@pytest.mark.parametrize(("factor", "offset"), [(257, 0), (16, 0), (257, 7), (3, -40_000)])
@pytest.mark.parametrize("polarity", ["MONOCHROME1", "MONOCHROME2"])
def test_a_factor_that_an_image_was_stored_with_changes_no_number(
    factor: int, offset: int, polarity: Polarity, phantom: np.ndarray
) -> None:
    eight = (phantom >> 4).astype(np.uint8)
    expected = network_input(Radiograph(eight, polarity), 64)
    stored = eight.astype(np.int32) * factor + offset
    kinds = [np.int32, np.float32, np.float64] + ([np.uint16] if offset >= 0 else [np.int64])
    for kind in kinds:
        result = network_input(Radiograph(stored.astype(kind), polarity), 64)
        np.testing.assert_array_equal(result, expected, err_msg=str(kind))
    limits = int(stored.min()) + 9 * factor, int(stored.max()) - 30 * factor
    clipped = Radiograph(eight, polarity, value_range=(float(eight.min()) + 9, float(eight.max()) - 30))
    np.testing.assert_array_equal(
        network_input(Radiograph(stored, polarity, value_range=limits), 64), network_input(clipped, 64)
    )


def test_the_step_is_what_divides_all_distances() -> None:
    even = np.array([[0, 4, 6], [10, 2, 0]], np.float32)
    assert common_step(even, 10.0) == 2
    assert common_step(even * 3, 30.0) == 6
    assert common_step(even + np.float32([[0, 0, 0], [0, 0, 1]]), 10.0) == 1
    assert common_step(even, 9.0) == 1  # a limit lies between
    assert common_step(even + np.float32([[0, 0.5, 0], [0, 0, 0]]), 10.0) == 1
    assert common_step(even, 10.5) == 1
    assert common_step(np.array([[0, 1 << 24]], np.float32), float(1 << 24)) == 1 << 24
    assert common_step(np.array([[0, 1 << 25]], np.float32), float(1 << 25)) == 1  # distances may have been rounded


def test_an_eight_bit_copy_gives_nearly_the_same_input(phantom: np.ndarray) -> None:
    eight = (phantom >> 4).astype(np.uint8)
    difference = network_input(Radiograph(eight), 64) - network_input(Radiograph(phantom), 64)
    assert np.abs(difference).max() < 0.02


def test_inverted_polarity_is_not_ignored(phantom: np.ndarray) -> None:
    white, black = (network_input(Radiograph(phantom, polarity), 64) for polarity in ("MONOCHROME2", "MONOCHROME1"))
    np.testing.assert_allclose(white, -black, atol=1e-5)


def test_black_becomes_minus_one_and_white_one() -> None:
    pixels = np.zeros((64, 64), np.uint16)
    pixels[:, 32:] = 999
    result = network_input(Radiograph(pixels), 64)
    assert result.dtype == np.float32
    assert result.shape == (64, 64)
    assert (result[:, :32] == -1).all()
    assert (result[:, 32:] == 1).all()


@given(IMAGE)
@settings(max_examples=30, deadline=None)
def test_values_stay_in_range_and_size_is_the_networks(pixels: np.ndarray) -> None:
    if pixels.min() == pixels.max():
        with pytest.raises(InputError, match="equal"):
            network_input(Radiograph(pixels), 40)
        return
    result = network_input(Radiograph(pixels), 40)
    assert result.shape == (40, 40)
    assert result.min() >= -1 - 1e-6
    assert result.max() <= 1 + 1e-6


@given(IMAGE, st.integers(1, 50), st.integers(-(10**6), 10**6))
@settings(max_examples=30, deadline=None)
def test_brightness_and_contrast_do_not_matter(pixels: np.ndarray, gain: int, offset: int) -> None:
    pixels[0, 0], pixels[0, 1] = 0, 1000
    original = network_input(Radiograph(pixels), 40)
    changed = network_input(Radiograph(pixels * gain + offset), 40)
    np.testing.assert_allclose(changed, original, atol=2e-6)


@pytest.mark.parametrize("value", [0, 7, 65535])
def test_constant_image_is_refused(value: int) -> None:
    for dtype in (np.uint16, np.float32):
        with pytest.raises(InputError, match=r"^all pixels are equal, there is nothing to see$"):
            network_input(Radiograph(np.full((64, 64), value, dtype)), 64)


@pytest.mark.parametrize("factor", [2, 3, 5])
def test_shrinking_by_a_whole_factor_is_the_mean_of_each_block(factor: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 4096, (40 * factor, 40 * factor), np.uint16)
    blocks = pixels.reshape(40, factor, 40, factor).mean(axis=(1, 3))
    span = float(pixels.max()) - pixels.min()
    expected = 2 * (blocks - pixels.min()) / span - 1
    np.testing.assert_allclose(network_input(Radiograph(pixels), 40), expected, atol=1e-6)


def test_shrinking_by_a_broken_factor_keeps_the_mean() -> None:
    image = np.random.default_rng(0).random((101, 173)).astype(np.float32)
    assert resize(image, 40).mean() == pytest.approx(image.mean(), abs=1e-4)


def test_enlarging_is_bilinear() -> None:
    image = np.tile(np.arange(40, dtype=np.float32), (40, 1))
    result = resize(image, 80)
    centres = np.clip((np.arange(80) + 0.5) / 2 - 0.5, 0, 39)
    np.testing.assert_allclose(result, np.tile(centres, (80, 1)), atol=1e-5)


def test_a_side_that_shrinks_is_averaged_while_the_other_grows() -> None:
    image = np.tile(np.random.default_rng(0).random(200).astype(np.float32), (40, 1))
    result = resize(image, 50)
    np.testing.assert_allclose(result[17], image[0].reshape(50, 4).mean(axis=1), atol=1e-6)


def test_aspect_ratio_is_not_kept() -> None:
    pixels = np.zeros((200, 100), np.uint8)
    pixels[:100, 50:] = 255
    result = network_input(Radiograph(pixels), 40)
    assert (result[:20, 20:] == 1).all()
    assert result.sum() == 400 - 1200


def input_of_halves(low: object, high: object, dtype: object, polarity: Polarity) -> np.ndarray:
    """Network input of an image that is ``low`` in its left and ``high`` in its right half."""
    pixels = np.full((64, 64), low, dtype)
    pixels[:, 32:] = high
    return network_input(Radiograph(pixels, polarity), 64)


@pytest.mark.parametrize("dtype", [np.uint8, np.int8, np.uint16, np.int16, np.uint32, np.int32])
def test_the_full_range_of_an_integer_type_does_not_overflow(dtype: type[np.integer]) -> None:
    limits = np.iinfo(dtype)
    for polarity, left in (("MONOCHROME2", -1), ("MONOCHROME1", 1)):
        result = input_of_halves(limits.min, limits.max, dtype, polarity)
        np.testing.assert_allclose(result[:, :32], left, atol=1e-6)
        np.testing.assert_allclose(result[:, 32:], -left, atol=1e-6)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (-(2**63), 2**63 - 1, np.int64),
        (0, 2**64 - 1, np.uint64),
        (2**63 + 5, 2**64 - 1, np.uint64),
        (0, 1e-300, np.float64),
        (0, 1e-40, np.float64),
        (0, 1e300, np.float64),
        (-1.7e308, 1.7e308, np.float64),
        (-3e38, 3e38, np.float32),
    ],
)
def test_values_beyond_what_can_be_computed_with_are_right_or_refused(low: Any, high: Any, dtype: Any) -> None:
    for polarity, left in (("MONOCHROME2", -1), ("MONOCHROME1", 1)):
        try:
            result = input_of_halves(low, high, dtype, polarity)
        except InputError:
            continue
        np.testing.assert_allclose(result[:, [0, -1]], [[left, -left]] * 64, atol=1e-6)


@pytest.mark.parametrize(("limit", "inside"), [(SMALLEST_RANGE, 1.01), (LARGEST_RANGE, 0.99)])
def test_a_range_as_small_or_large_as_the_limits_is_refused_and_one_within_is_not(limit: float, inside: float) -> None:
    with pytest.raises(InputError, match="no image's range"):
        input_of_halves(0, limit, np.float64, "MONOCHROME2")
    result = input_of_halves(0, inside * limit, np.float64, "MONOCHROME2")
    np.testing.assert_allclose(result[:, [0, -1]], [[-1, 1]] * 64, atol=1e-6)


def test_a_host_that_raises_on_floating_point_errors_gets_a_result() -> None:
    pixels = np.zeros((64, 64))
    pixels[:, 32:] = 1e29
    pixels[0, 0] = 1e-20  # far below the rest once it is multiplied
    spread = np.full((64, 64), 50.0)
    spread[:, 32:], spread[0, :2] = 1e300, (1e-300, 0)  # beyond single precision, at both ends
    with np.errstate(all="raise"):
        plain = network_input(Radiograph(pixels), 64)
        clipped = network_input(Radiograph(spread, value_range=(0, 100)), 64)
    np.testing.assert_array_equal(plain[:, [0, -1]], [[-1, 1]] * 64)
    np.testing.assert_array_equal(clipped[0, [0, 1, -1]], [-1, -1, 1])


@pytest.mark.parametrize(("low", "high"), [(0, 1e-3), (-1, 1), (-1e3, 1e3), (0, 1e9)])
def test_floating_values_of_any_sane_scale_are_fine(low: float, high: float) -> None:
    for dtype in (np.float32, np.float64):
        result = input_of_halves(low, high, dtype, "MONOCHROME2")
        np.testing.assert_allclose(result[:, [0, -1]], [[-1, 1]] * 64, atol=1e-6)


def test_half_precision_is_read_exactly() -> None:
    pixels = np.linspace(-60000, 60000, 64 * 64).reshape(64, 64).astype(np.float16)
    result = network_input(Radiograph(pixels), 64)
    assert np.isfinite(result).all()
    assert result[0, 0] == -1
    assert result[-1, -1] == pytest.approx(1)


def test_the_radiograph_is_not_changed(phantom: np.ndarray) -> None:
    copy = phantom.copy()
    for polarity in ("MONOCHROME1", "MONOCHROME2"):
        network_input(Radiograph(copy, polarity), 64)
        grey_levels(Radiograph(copy, polarity), (80, 100), 255)
    np.testing.assert_array_equal(copy, phantom)


def test_mask_at_network_size_is_thresholded_at_the_middle() -> None:
    mask = np.zeros((128, 128), np.uint8)
    mask[:, 65:] = 255  # column 32 of 64 is half covered: 127.5 is not above the middle
    result = network_mask(mask, 64)
    assert result.dtype == bool
    assert not result[:, :33].any()
    assert result[:, 33:].all()


def test_grey_levels_run_from_black_to_the_largest_level(phantom: np.ndarray) -> None:
    for levels in (254, 255):
        grey = grey_levels(Radiograph(phantom), (160, 200), levels)
        assert grey.dtype == np.uint8
        assert (grey.min(), grey.max()) == (0, levels)
        assert grey.shape == (200, 160)


def test_grey_levels_follow_what_is_shown(phantom: np.ndarray) -> None:
    white = grey_levels(Radiograph(phantom), (80, 100), 254)
    black = grey_levels(Radiograph(4095 - phantom, "MONOCHROME1"), (80, 100), 254)
    np.testing.assert_array_equal(white, black)


def test_grey_levels_of_a_constant_image_are_black() -> None:
    assert not grey_levels(Radiograph(np.full((64, 64), 9, np.uint8)), (64, 64), 255).any()


# Values that count


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("limits", [(20, 180), (20.5, 179.25), (0, 255), (-300, 500)])
def test_values_beyond_the_range_are_clipped_to_black_and_white(limits: tuple[float, float], dtype: Any) -> None:
    pixels = np.tile(np.arange(256), (64, 1)).astype(dtype)
    clipped = np.clip(np.tile(np.arange(256.0), (64, 1)), *limits)
    expected = 2 * (clipped - limits[0]) / (limits[1] - limits[0]) - 1
    for polarity, sign in (("MONOCHROME2", 1), ("MONOCHROME1", -1)):
        result = network_input(Radiograph(pixels, polarity, value_range=limits), 256)
        np.testing.assert_allclose(result[100], sign * expected[0], atol=1e-5)
    shown = grey_levels(Radiograph(pixels, value_range=limits), (256, 64), 254)
    np.testing.assert_allclose(shown[0], np.rint((expected[0] + 1) * 127), atol=1)


def test_a_range_that_is_the_pixels_own_changes_nothing(phantom: np.ndarray) -> None:
    limits = (float(phantom.min()), float(phantom.max()))
    for polarity in ("MONOCHROME1", "MONOCHROME2"):
        with_range = network_input(Radiograph(phantom, polarity, value_range=limits), 64)
        np.testing.assert_array_equal(with_range, network_input(Radiograph(phantom, polarity), 64))


def test_a_range_of_one_value_is_refused(phantom: np.ndarray) -> None:
    with pytest.raises(InputError, match="all pixels are equal"):
        network_input(Radiograph(phantom, value_range=(7, 7)), 64)


@pytest.mark.parametrize("limit", [np.nan, np.inf])
def test_a_range_that_is_not_finite_is_refused(limit: float, phantom: np.ndarray) -> None:
    with pytest.raises(InputError, match="not finite"):
        Radiograph(phantom, value_range=(0, limit))


@pytest.mark.parametrize("dtype", ["u1", "i2", "u4", "f4", "f8"])
def test_the_one_copy_is_of_single_precision(dtype: str) -> None:
    pixels = np.arange(64 * 48).reshape(64, 48).astype(dtype)
    assert offset_from_black(Radiograph(pixels), pixels.min(), pixels.max()).dtype == np.float32


def test_a_limit_between_two_values_is_not_rounded_before_it_is_subtracted() -> None:
    pixels = np.arange(64 * 48, dtype=np.uint16).reshape(64, 48) + np.uint16(60_000)
    low, high = 60_000.0123, 63_000.4567
    offset = offset_from_black(Radiograph(pixels, value_range=(low, high)), low, high)
    expected = np.clip(pixels.astype(np.float64) - low, 0, high - low).astype(np.float32)
    np.testing.assert_array_equal(offset, expected)


def test_a_picture_is_made_by_averaging() -> None:
    pixels = np.zeros((64, 64), np.uint8)
    pixels[::4, ::4] = 160
    picture = grey_levels(Radiograph(pixels), (16, 16), 160)
    np.testing.assert_array_equal(picture, np.full((16, 16), 10))
