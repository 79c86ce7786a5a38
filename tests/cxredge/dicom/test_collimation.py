"""Padding, shutters, collimators and borders: kept out of the normalisation where they make sense."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset

from cxredge import Radiograph, Segmenter
from cxredge.dicom.collimation import constant_borders
from cxredge.dicom.reading import radiograph_from_dataset
from cxredge.preprocessing import network_input

TOP, BOTTOM, LEFT, RIGHT = 20, 180, 16, 144
INSIDE = np.s_[TOP:BOTTOM, LEFT:RIGHT]
SHUTTER = {
    "ShutterShape": "RECTANGULAR",
    "ShutterLeftVerticalEdge": LEFT + 1,
    "ShutterRightVerticalEdge": RIGHT,
    "ShutterUpperHorizontalEdge": TOP + 1,
    "ShutterLowerHorizontalEdge": BOTTOM,
}
COLLIMATOR = {keyword.replace("Shutter", "Collimator"): value for keyword, value in SHUTTER.items()}


@pytest.fixture(scope="session")
def low(phantom: np.ndarray) -> np.ndarray:
    """A radiograph in the lowest eighth of the 12-bit range."""
    return (100 + phantom // 8).astype(np.uint16)


def bordered(pixels: np.ndarray, value: int, noise: int = 0) -> np.ndarray:
    """``pixels`` with everything but the middle at ``value``, more or less."""
    framed = value - np.random.default_rng(0).integers(0, noise + 1, pixels.shape).astype(pixels.dtype)
    framed[INSIDE] = pixels[INSIDE]
    return framed


def limits(pixels: np.ndarray) -> tuple[float, float]:
    return float(pixels.min()), float(pixels.max())


@pytest.mark.parametrize("value", [0, 4095])
@pytest.mark.parametrize("attributes", [{}, SHUTTER, COLLIMATOR], ids=["constant", "shutter", "collimator"])
def test_a_border_does_not_shape_the_normalisation(
    attributes: dict[str, Any], value: int, low: np.ndarray, make_dicom: Any
) -> None:
    read = radiograph_from_dataset(make_dicom(bordered(low, value), 12, **attributes))
    assert read.value_range is not None
    assert np.abs(np.subtract(read.value_range, limits(low[INSIDE]))).max() <= 8
    assert read.shape == low.shape


def test_the_value_of_a_border_does_not_matter_to_the_mask_within(
    low: np.ndarray, make_dicom: Any, segmenter: Segmenter
) -> None:
    masks = [segmenter(make_dicom(bordered(low, value), 12, **SHUTTER)).mask for value in (0, 2000, 4095)]
    for mask in masks[1:]:
        np.testing.assert_array_equal(mask, masks[0])


@pytest.mark.parametrize("attributes", [{}, SHUTTER, COLLIMATOR], ids=["constant", "shutter", "collimator"])
def test_beyond_a_border_it_is_black_in_either_polarity(
    attributes: dict[str, Any], low: np.ndarray, make_dicom: Any
) -> None:
    white = make_dicom(bordered(low, 4095), 12, **attributes)
    black = make_dicom(4095 - bordered(low, 4095), 12, PhotometricInterpretation="MONOCHROME1", **attributes)
    shown = network_input(radiograph_from_dataset(white), 64)
    assert (shown[:6] == -1).all()
    np.testing.assert_array_equal(network_input(radiograph_from_dataset(black), 64), shown)


def test_padding_in_the_middle_is_not_painted(low: np.ndarray, make_dicom: Any) -> None:
    pixels = low.copy()
    pixels[90:110, 70:90] = 4095
    read = radiograph_from_dataset(make_dicom(pixels, 12, PixelPaddingValue=4095))
    np.testing.assert_array_equal(read.pixels, pixels)
    assert read.value_range == limits(pixels[pixels < 4095])


def test_a_round_and_a_polygonal_shutter(low: np.ndarray, make_dicom: Any) -> None:
    row, column = np.mgrid[: low.shape[0], : low.shape[1]]
    inside = (row - 99) ** 2 + (column - 79) ** 2 < 70**2
    pixels = np.where(inside, low, 4095).astype(np.uint16)
    circle = {"ShutterShape": "CIRCULAR", "CenterOfCircularShutter": [100, 80], "RadiusOfCircularShutter": 69}
    polygon = {
        "ShutterShape": ["POLYGONAL", "RECTANGULAR"],
        "VerticesOfThePolygonalShutter": [35, 80, 100, 15, 165, 80, 100, 145],
        "ShutterLeftVerticalEdge": 10,
        "ShutterRightVerticalEdge": 150,
        "ShutterUpperHorizontalEdge": 10,
        "ShutterLowerHorizontalEdge": 190,
    }
    for attributes in (circle, polygon):
        read = radiograph_from_dataset(make_dicom(pixels, 12, **attributes))
        assert read.value_range is not None
        assert read.value_range[1] <= low.max()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "wrong",
    [
        {"ShutterLeftVerticalEdge": None},
        {"ShutterLeftVerticalEdge": 140},
        {"ShutterRightVerticalEdge": -5},
        {"ShutterUpperHorizontalEdge": [1, 2]},
        {"ShutterShape": "CIRCULAR", "CenterOfCircularShutter": [5], "RadiusOfCircularShutter": 10},
        {"ShutterShape": "CIRCULAR", "CenterOfCircularShutter": [5, 5], "RadiusOfCircularShutter": -10},
        {"ShutterShape": "CIRCULAR", "CenterOfCircularShutter": [2**31 - 1] * 2, "RadiusOfCircularShutter": 2**31 - 1},
        {"ShutterShape": "POLYGONAL", "VerticesOfThePolygonalShutter": [1, 2, 3]},
        {"ShutterShape": "POLYGONAL", "VerticesOfThePolygonalShutter": [0, 0, 2**31 - 1, 0, 2**31 - 1, 2**31 - 1]},
        {"ShutterShape": "POLYGONAL", "VerticesOfThePolygonalShutter": None},
        {"ShutterShape": "BITMAP"},
        {"ShutterShape": None},
    ],
)
def test_a_shutter_that_makes_no_sense_is_passed_over(
    wrong: dict[str, Any], phantom: np.ndarray, make_dicom: Any
) -> None:
    read = radiograph_from_dataset(make_dicom(phantom, 12, **{**SHUTTER, **wrong}))
    assert read.value_range is None
    np.testing.assert_array_equal(read.pixels, phantom)


def test_a_shutter_at_the_edges_of_the_image_is_none(phantom: np.ndarray, make_dicom: Any) -> None:
    edges = {
        **SHUTTER,
        "ShutterLeftVerticalEdge": -7,
        "ShutterRightVerticalEdge": 160,
        "ShutterUpperHorizontalEdge": 0,
        "ShutterLowerHorizontalEdge": 201,
    }
    assert radiograph_from_dataset(make_dicom(phantom, 12, **edges)).value_range is None


def test_a_collimator_that_the_pixels_do_not_show_is_passed_over(phantom: np.ndarray, make_dicom: Any) -> None:
    assert radiograph_from_dataset(make_dicom(phantom, 12, **COLLIMATOR)).value_range is None


def test_a_collimators_shadow_need_not_be_of_one_value(low: np.ndarray, make_dicom: Any) -> None:
    read = radiograph_from_dataset(make_dicom(bordered(low, 4095, noise=60), 12, **COLLIMATOR))
    assert read.value_range is not None
    assert read.value_range[1] <= low.max()


# Padding


@pytest.mark.parametrize(
    ("attributes", "value"),
    [
        ({"PixelPaddingValue": 4095}, 4095),
        ({"PixelPaddingValue": 4000, "PixelPaddingRangeLimit": 4095}, 4050),
        ({"PixelPaddingValue": 4095, "PixelPaddingRangeLimit": 4000}, 4050),
        ({"PixelPaddingValue": 0xFFFF}, 4095),  # more bits than are stored
    ],
)
def test_padding_does_not_shape_the_normalisation(
    attributes: dict[str, int], value: int, low: np.ndarray, make_dicom: Any
) -> None:
    pixels = low.copy()
    pixels[:60, :40] = value
    dataset = make_dicom(pixels, 12, **attributes)
    assert radiograph_from_dataset(dataset).value_range == limits(pixels[pixels < 4000])


def test_padding_of_signed_pixels_may_be_written_without_its_sign(low: np.ndarray, make_dicom: Any) -> None:
    pixels = low.astype(np.int16)
    pixels[:60, :40] = -2000
    for written, vr in ((-2000, "SS"), (65536 - 2000, "US")):
        dataset = make_dicom(pixels, 16)
        dataset.add_new("PixelPaddingValue", vr, written)
        assert radiograph_from_dataset(dataset).value_range == limits(pixels[pixels > 0])


def test_padding_applies_to_stored_values_before_tables(low: np.ndarray, make_dicom: Any) -> None:
    pixels = low.copy()
    pixels[:60, :40] = 4095
    table = Dataset()
    table.LUTDescriptor, table.LUTData = [4096, 0, 16], (65535 - np.arange(4096)).astype("<u2").tobytes()
    table["LUTDescriptor"].VR, table["LUTData"].VR = "US", "OW"
    dataset = make_dicom(pixels, 12, PixelPaddingValue=4095, ModalityLUTSequence=[table])
    assert radiograph_from_dataset(dataset).value_range == limits(65535 - pixels[pixels < 4095].astype(int))


def test_padding_that_is_not_there_or_everywhere_is_passed_over(phantom: np.ndarray, make_dicom: Any) -> None:
    assert radiograph_from_dataset(make_dicom(phantom, 12, PixelPaddingValue=4095)).value_range is None
    everything = make_dicom(phantom, 12, PixelPaddingValue=0, PixelPaddingRangeLimit=4095)
    assert radiograph_from_dataset(everything).value_range is None


# Borders that only the pixels show


def test_a_border_within_the_range_of_the_image_changes_nothing(phantom: np.ndarray, make_dicom: Any) -> None:
    for value in (int(phantom[INSIDE].min()), int(phantom[INSIDE].max()), 2000):
        pixels = bordered(phantom, value)
        read = radiograph_from_dataset(make_dicom(pixels, 12))
        np.testing.assert_array_equal(network_input(read, 64), network_input(Radiograph(pixels), 64))


def test_borders_are_counted_side_by_side() -> None:
    pixels = np.arange(40 * 50).reshape(40, 50)
    assert constant_borders(pixels) == (0, 0, 0, 0)
    pixels[:3], pixels[-2:], pixels[:, :4] = 7, 9, 5
    pixels[:3], pixels[-2:] = 7, 9
    assert constant_borders(pixels) == (3, 2, 4, 0)
    assert constant_borders(np.zeros((40, 50))) == (0, 0, 0, 0)


def test_a_bright_line_at_the_edge_does_not_shape_the_normalisation(low: np.ndarray, make_dicom: Any) -> None:
    pixels = low.copy()
    pixels[:, -1] = 4095
    read = radiograph_from_dataset(make_dicom(pixels, 12))
    assert read.value_range == limits(low[:, :-1])
