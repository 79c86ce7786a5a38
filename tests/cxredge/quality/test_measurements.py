"""Areas, their ratio and the symmetry of lungs whose size is known beforehand."""

from __future__ import annotations

import numpy as np
import pytest

from cxredge import Radiograph, Segmenter
from cxredge.quality.measurements import measure

from .test_laterality import AT_LEFT, AT_RIGHT, BRIDGE, SHAPE, boxes


def test_areas_are_in_pixels_and_in_square_millimetres_where_spacing_is_known() -> None:
    pixels = np.zeros(SHAPE)
    unknown = measure(Radiograph(pixels), boxes(AT_LEFT, AT_RIGHT))
    assert (unknown.right.area_pixels, unknown.left.area_pixels) == (2450, 2800)
    assert unknown.left.area_mm2 is None
    assert unknown.spacing_plane is None
    known = measure(Radiograph(pixels, spacing=(0.5, 0.2), spacing_plane="detector"), boxes(AT_LEFT, AT_RIGHT))
    assert known.left.area_mm2 == pytest.approx(280)
    assert known.spacing_plane == "detector"
    assert known.area_ratio == pytest.approx(2800 / 2450)
    assert known.right.box == AT_LEFT


def test_lungs_that_mirror_each_other_are_symmetric_wherever_they_lie() -> None:
    for shift in (0, 9):
        found = measure(Radiograph(np.zeros(SHAPE)), boxes((10, 10 + shift, 80, 40 + shift), (10, 70, 80, 100)))
        assert found.symmetry > 0.97
        assert found.area_ratio == 1


def test_a_lung_that_stands_lower_or_is_smaller_makes_them_less_symmetric() -> None:
    lower = measure(Radiograph(np.zeros(SHAPE)), boxes((0, 10, 50, 40), (25, 70, 75, 100)))
    assert lower.symmetry == pytest.approx(0.5, abs=0.03)
    half = measure(Radiograph(np.zeros(SHAPE)), boxes((10, 10, 50, 40), (10, 70, 90, 100)))
    assert half.symmetry == pytest.approx(2 / 3, abs=0.03)


def test_one_lung_has_an_area_but_neither_ratio_nor_symmetry() -> None:
    found = measure(Radiograph(np.zeros(SHAPE)), boxes(AT_LEFT))
    assert found.left is None
    assert found.right.area_pixels == 2450
    assert found.area_ratio is None
    assert found.symmetry is None


def test_no_lung_is_measured_as_nothing() -> None:
    content = measure(Radiograph(np.zeros(SHAPE)), boxes()).to_dict()
    assert content["left"] == content["right"] == {"area_pixels": 0, "area_mm2": None, "box": None}
    assert content["area_ratio"] is None


def test_joined_lungs_are_measured_apart_and_said_to_be_joined() -> None:
    found = measure(Radiograph(np.zeros(SHAPE)), boxes(AT_LEFT, AT_RIGHT, BRIDGE))
    assert found.joined
    assert found.left.area_pixels + found.right.area_pixels == boxes(AT_LEFT, AT_RIGHT, BRIDGE).sum()


def test_a_segmentation_is_measured_on_its_own_mask(chest: np.ndarray, segmenter: Segmenter) -> None:
    result = segmenter(Radiograph(chest, orientation=("R", "F")))
    found = result.measurements
    assert sum(lung.area_pixels for lung in found.lungs) == result.mask.sum()
    assert found.sides_from == "header"
    assert found.left.box[1] < found.right.box[1]
