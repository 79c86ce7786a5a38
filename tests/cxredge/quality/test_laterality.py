"""Which lung is which: by the image's sides, by the header, and where both are one component."""

from __future__ import annotations

import numpy as np
import pytest

from cxredge import Radiograph
from cxredge.quality.laterality import find_lungs

SHAPE = (100, 120)


def boxes(*found: tuple[int, int, int, int]) -> np.ndarray:
    """A mask of boxes (top, left, bottom, right)."""
    mask = np.zeros(SHAPE, bool)
    for top, left, bottom, right in found:
        mask[top:bottom, left:right] = True
    return mask


AT_LEFT, AT_RIGHT, BRIDGE = (10, 10, 80, 45), (20, 60, 90, 100), (45, 45, 55, 60)


def test_by_custom_the_patients_right_lung_is_at_the_images_left() -> None:
    found = find_lungs(boxes(AT_LEFT, AT_RIGHT))
    assert not found.from_header
    assert not found.joined
    np.testing.assert_array_equal(found.right.within(SHAPE), boxes(AT_LEFT))
    np.testing.assert_array_equal(found.left.within(SHAPE), boxes(AT_RIGHT))
    assert (found.right.area, found.left.area) == (70 * 35, 70 * 40)


@pytest.mark.parametrize(("orientation", "left_at"), [(("R", "F"), AT_LEFT), (("L", "F"), AT_RIGHT)])
def test_a_header_that_says_how_the_patient_lies_is_believed(
    orientation: tuple[str, str], left_at: tuple[int, int, int, int]
) -> None:
    found = find_lungs(boxes(AT_LEFT, AT_RIGHT), Radiograph(np.zeros(SHAPE), orientation=orientation))
    assert found.from_header
    np.testing.assert_array_equal(found.left.within(SHAPE), boxes(left_at))


def test_the_order_does_not_depend_on_which_is_larger_or_higher() -> None:
    for one, other in ((10, 5), (5, 10)):
        mask = boxes((one, 10, 60, 30), (other, 70, 95, 115))
        assert find_lungs(mask).right.left == 10


@pytest.mark.parametrize("mirrored", [False, True])
def test_joined_lungs_are_split_where_they_are_narrowest(mirrored: bool) -> None:
    mask = boxes(AT_LEFT, AT_RIGHT, BRIDGE)
    mask = mask[:, ::-1].copy() if mirrored else mask
    found = find_lungs(mask)
    assert found.joined
    parts = found.left.within(SHAPE), found.right.within(SHAPE)
    np.testing.assert_array_equal(parts[0] | parts[1], mask)
    assert not (parts[0] & parts[1]).any()
    bridge = boxes(BRIDGE)[:, :: -1 if mirrored else 1]
    for lung in parts:
        assert lung[~bridge].sum() in {70 * 35, 70 * 40}


@pytest.mark.parametrize(
    "shape",
    [
        (10, 10, 80, 45),  # higher than wide
        (10, 10, 80, 100),  # wide, but without a waist
    ],
)
def test_one_lung_is_not_split(shape: tuple[int, int, int, int]) -> None:
    found = find_lungs(boxes(shape))
    assert not found.joined
    assert len(found.found) == 1


def test_a_speck_at_the_end_of_a_bridge_is_no_lung() -> None:
    found = find_lungs(boxes((10, 10, 80, 60), (30, 60, 34, 76), (28, 76, 36, 80)))
    assert not found.joined


def test_one_lung_is_that_of_its_half_of_the_image() -> None:
    assert find_lungs(boxes(AT_LEFT)).left is None
    assert find_lungs(boxes(AT_RIGHT)).right is None
    flipped = Radiograph(np.zeros(SHAPE), orientation=("R", "F"))
    assert find_lungs(boxes(AT_LEFT), flipped).right is None


def test_an_empty_mask_has_no_lungs() -> None:
    assert find_lungs(boxes()).found == ()


def test_of_more_than_two_components_the_largest_count() -> None:
    found = find_lungs(boxes(AT_LEFT, AT_RIGHT, (95, 0, 98, 3)))
    assert sorted(lung.area for lung in found.found) == [70 * 35, 70 * 40]
