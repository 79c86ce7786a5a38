"""From logits to a mask: two lungs at most, whole, at the radiograph's size."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cxredge.postprocessing import (
    clean_logits,
    component_count,
    fill_holes,
    largest_components,
    lung_mask,
    scale_mask,
)

LOGITS = arrays(np.float32, (12, 12), elements=st.sampled_from([-8, -2, -0.5, 0, 0.25, 1, 6]).map(np.float32))


def components(mask: np.ndarray) -> int:
    return cv2.connectedComponents(mask.astype(np.uint8), connectivity=4)[0] - 1


def holes(mask: np.ndarray) -> int:
    """Background regions that do not reach the border."""
    return components(~np.pad(mask, 1)) - 1


def blob(*boxes: tuple[int, int, int, int], size: int = 32) -> np.ndarray:
    """Logits of 3 inside the boxes (top, left, bottom, right) and -3 elsewhere."""
    logits = np.full((size, size), -3, np.float32)
    for top, left, bottom, right in boxes:
        logits[top:bottom, left:right] = 3
    return logits


@given(LOGITS)
@settings(max_examples=200, deadline=None)
def test_cleaned_logits_have_at_most_two_components_and_no_holes(logits: np.ndarray) -> None:
    clean = clean_logits(logits) > 0
    assert components(clean) <= 2
    assert holes(clean) == 0


@given(LOGITS)
@settings(max_examples=200, deadline=None)
def test_cleaning_twice_is_cleaning_once(logits: np.ndarray) -> None:
    once = clean_logits(logits)
    np.testing.assert_array_equal(clean_logits(once), once)


@given(LOGITS, st.sampled_from([(12, 12), (24, 24), (36, 60), (37, 29), (100, 12), (121, 97), (9, 7), (6, 6), (5, 30)]))
@settings(max_examples=300, deadline=None)
def test_a_mask_of_any_size_has_at_most_two_components_and_no_holes(logits: np.ndarray, shape: tuple[int, int]) -> None:
    mask = lung_mask(logits, shape)
    assert mask.shape == shape
    assert mask.dtype == bool
    assert components(mask) <= 2
    assert holes(mask) == 0


@given(LOGITS)
@settings(max_examples=200, deadline=None)
def test_cleaning_turns_signs_only_where_it_moves_a_pixel(logits: np.ndarray) -> None:
    clean = clean_logits(logits)
    assert clean.dtype == np.float32
    same = (clean > 0) == (logits > 0)
    np.testing.assert_array_equal(clean[same], logits[same])
    moved = ~same & (logits != 0)
    np.testing.assert_allclose(clean[moved], -logits[moved], atol=1e-3)


def test_cleaning_does_not_change_its_argument() -> None:
    logits = blob((2, 2, 9, 9))
    logits[5, 5] = -1
    copy = logits.copy()
    clean_logits(logits)
    np.testing.assert_array_equal(logits, copy)


def test_the_two_largest_components_are_kept() -> None:
    mask = lung_mask(blob((1, 1, 20, 9), (1, 14, 18, 22), (25, 2, 29, 6), (24, 27, 26, 29)), (32, 32))
    np.testing.assert_array_equal(mask, blob((1, 1, 20, 9), (1, 14, 18, 22)) > 0)


def test_components_that_touch_at_a_corner_are_two() -> None:
    touching = blob((2, 2, 6, 6), (6, 6, 10, 10)) > 0
    assert component_count(touching) == 2


def test_a_hole_is_filled_and_a_bay_is_not() -> None:
    logits = blob((4, 4, 28, 14))
    logits[10:13, 7:10] = -2
    filled = blob((4, 4, 28, 14)) > 0
    np.testing.assert_array_equal(lung_mask(logits, (32, 32)), filled)
    logits[10:13, 4:10] = -2
    assert not lung_mask(logits, (32, 32))[10:13, 4:10].any()


def test_a_small_component_inside_a_hole_becomes_part_of_the_lung() -> None:
    logits = blob((2, 2, 30, 30))
    logits[8:24, 8:24] = -3
    logits[14:18, 14:18] = 3
    np.testing.assert_array_equal(lung_mask(logits, (32, 32)), blob((2, 2, 30, 30)) > 0)


def test_lungs_that_reach_the_border_are_whole() -> None:
    touching = blob((0, 0, 32, 10), (0, 22, 32, 32))
    np.testing.assert_array_equal(lung_mask(touching, (32, 32)), touching > 0)


@pytest.mark.parametrize("value", [-5, 0])
def test_no_positive_logit_gives_an_empty_mask(value: float) -> None:
    mask = lung_mask(np.full((16, 16), value, np.float32), (50, 40))
    assert mask.shape == (50, 40)
    assert not mask.any()


def test_only_positive_logits_give_a_full_mask() -> None:
    assert lung_mask(np.full((16, 16), 2, np.float32), (50, 40)).all()


def test_same_size_is_thresholding() -> None:
    logits = np.linspace(-1, 1, 256, dtype=np.float32).reshape(16, 16)
    np.testing.assert_array_equal(scale_mask(logits, (16, 16)), logits > 0)


def test_scaling_to_another_aspect_ratio_moves_the_border_where_the_logits_cross_zero() -> None:
    ramp = np.tile(np.arange(16, dtype=np.float32) - 5.25, (16, 1))
    mask = scale_mask(ramp, (20, 160))
    crossing = (5.25 + 0.5) * 10
    columns = np.arange(160) + 0.5
    np.testing.assert_array_equal(mask, np.tile(columns > crossing, (20, 1)))


@pytest.mark.parametrize("shape", [(64, 64), (100, 70), (333, 512), (24, 28), (16, 16)])
def test_area_share_is_kept_by_scaling(shape: tuple[int, int]) -> None:
    logits = blob((4, 4, 28, 14), (4, 18, 28, 28))
    assert lung_mask(logits, shape).mean() == pytest.approx((logits > 0).mean(), rel=0.1)


def test_helpers_leave_what_is_clean_alone() -> None:
    clean = blob((4, 4, 28, 13), (4, 19, 28, 28)) > 0
    np.testing.assert_array_equal(largest_components(clean), clean)
    np.testing.assert_array_equal(fill_holes(clean), clean)
    assert component_count(clean) == 2
    assert component_count(np.zeros((8, 8), bool)) == 0
    assert component_count(np.ones((8, 8), bool)) == 1


def test_as_many_components_are_kept_as_are_asked_for() -> None:
    three = blob((1, 1, 20, 9), (1, 14, 18, 22), (25, 2, 29, 6)) > 0
    assert [component_count(largest_components(three, count)) for count in (1, 2, 3, 4)] == [1, 2, 3, 3]


def test_of_equally_large_components_the_first_are_kept() -> None:
    mask = np.zeros((64, 64), bool)
    mask[1:-1:3, 1:-1:3] = True
    mask[1:-1:3, 5:-1:6] = True  # every other one has two pixels: equal ones stand in any order among others
    kept = largest_components(mask)
    assert kept.dtype == bool
    assert [tuple(place) for place in np.argwhere(kept)] == [(1, 4), (1, 5), (1, 10), (1, 11)]


def test_the_bytes_of_a_mask_are_zeros_and_ones() -> None:
    logits = blob((4, 4, 28, 14), (4, 18, 28, 28))
    logits[10:13, 7:10] = -2
    for mask in (lung_mask(logits, (64, 50)), fill_holes(logits > 0)):
        assert mask.dtype == bool
        assert np.unique(mask.view(np.uint8)).tolist() == [0, 1]
