"""Outlines: filled, they are the mask again; labelled by the patient's side; in pixels and in millimetres."""

from __future__ import annotations

import json
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cxredge import Radiograph, Segmentation, Segmenter
from cxredge.contours import CONTOUR_COLOUR, CONTOUR_INDEX, contour_json, outlines, palette
from cxredge.postprocessing import fill_holes, largest_components
from cxredge.quality.laterality import components, find_lungs

MODEL = {"name": "darkness", "sha256": "ab" * 32}


def content_of(segmentation: Segmentation) -> dict[str, Any]:
    content: dict[str, Any] = json.loads(contour_json(segmentation, MODEL))
    return content


def filled(lung: dict[str, Any], shape: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    for polygon in lung["polygons"]:
        cv2.fillPoly(mask, [np.array(polygon, np.int32)], 1)
    return mask > 0


def test_filled_polygons_are_the_lungs(segmenter: Segmenter, chest: np.ndarray) -> None:
    segmentation = segmenter(chest)
    content = content_of(segmentation)
    lungs = find_lungs(segmentation.mask, segmentation.radiograph)
    for name, lung in (("left", lungs.left), ("right", lungs.right)):
        assert lung is not None
        np.testing.assert_array_equal(filled(content["lungs"][name], chest.shape), lung.within(chest.shape))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.3, 0.8))
def test_any_mask_comes_back_from_its_polygons(seed: int, share: float) -> None:
    noise = np.random.default_rng(seed).random((40, 50)) < share
    mask = fill_holes(largest_components(noise))
    drawn = np.zeros(mask.shape, np.uint8)
    for component in components(mask):
        for polygon in outlines(component):
            cv2.fillPoly(drawn, [polygon], 1)
    np.testing.assert_array_equal(drawn > 0, mask)


@pytest.mark.parametrize(("orientation", "at_left"), [(None, "right"), (("L", "F"), "right"), (("R", "F"), "left")])
def test_sides_are_the_patients(
    segmenter: Segmenter, chest: np.ndarray, orientation: tuple[str, str] | None, at_left: str
) -> None:
    content = content_of(segmenter(Radiograph(chest, orientation=orientation)))
    columns = {name: np.mean(lung["polygons"][0], axis=0)[0] for name, lung in content["lungs"].items()}
    assert min(columns, key=columns.__getitem__) == at_left
    assert content["sides_from"] == ("custom" if orientation is None else "header")


def test_millimetres_follow_the_spacing_of_rows_and_columns(segmenter: Segmenter, chest: np.ndarray) -> None:
    content = content_of(segmenter(Radiograph(chest, spacing=(0.5, 0.2), spacing_plane="detector")))
    assert (content["spacing_mm"], content["spacing_plane"]) == ([0.5, 0.2], "detector")
    lung = content["lungs"]["left"]
    expected = np.array(lung["polygons"][0]) * (0.2, 0.5)
    np.testing.assert_allclose(lung["polygons_mm"][0], expected, atol=1e-3)


def test_without_a_spacing_there_are_no_millimetres(segmenter: Segmenter, chest: np.ndarray) -> None:
    content = content_of(segmenter(chest))
    assert content["spacing_mm"] is content["spacing_plane"] is content["lungs"]["left"]["polygons_mm"] is None


def test_a_lung_that_is_not_there_is_null(segmenter: Segmenter, chest: np.ndarray) -> None:
    half = chest.copy()
    half[:, :48] = 3000
    lungs = content_of(segmenter(half))["lungs"]
    assert lungs["right"] is None
    assert lungs["left"] is not None


def test_all_that_stands_in_the_file(segmenter: Segmenter, chest: np.ndarray) -> None:
    content = content_of(segmenter(Radiograph(chest, identity="1.2.3")))
    assert list(content) == [
        "format",
        "sop_instance_uid",
        "width",
        "height",
        "spacing_mm",
        "spacing_plane",
        "sides_from",
        "model",
        "lungs",
    ]
    assert (content["format"], content["sop_instance_uid"], content["model"]) == (1, "1.2.3", MODEL)
    assert (content["height"], content["width"]) == chest.shape


def test_palette_is_grey_and_the_contours_colour() -> None:
    colours = palette()
    assert colours.shape == (256, 3)
    assert tuple(colours[CONTOUR_INDEX]) == CONTOUR_COLOUR
    assert (colours[:CONTOUR_INDEX] == colours[:CONTOUR_INDEX, :1]).all()
    assert (tuple(colours[0]), tuple(colours[CONTOUR_INDEX - 1])) == ((0, 0, 0), (255, 255, 255))
