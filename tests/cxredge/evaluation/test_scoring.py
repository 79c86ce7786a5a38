"""Dice and true-positive ratio, by hand and by their laws."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cxredge.evaluation.scoring import dice, true_positive_ratio

MASK = arrays(bool, (5, 6))
FOUR = np.array([[1, 1, 0], [1, 1, 0]], bool)
TWO = np.array([[0, 1, 1], [0, 0, 0]], bool)
NONE = np.zeros((2, 3), bool)


def test_dice_of_a_hand_example() -> None:
    assert dice(FOUR, TWO) == pytest.approx(2 * 1 / (4 + 2))


def test_dice_of_equal_masks_is_one_and_of_disjoint_masks_zero() -> None:
    assert dice(FOUR, FOUR) == 1
    assert dice(FOUR, ~FOUR) == 0


def test_dice_of_two_empty_masks_is_one_and_of_one_empty_mask_zero() -> None:
    assert dice(NONE, NONE) == 1
    assert dice(FOUR, NONE) == 0
    assert dice(NONE, FOUR) == 0


@given(MASK, MASK)
def test_dice_is_symmetric_and_between_zero_and_one(first: np.ndarray, second: np.ndarray) -> None:
    assert dice(first, second) == dice(second, first)
    assert 0 <= dice(first, second) <= 1
    assert (dice(first, second) == 1) == bool((first == second).all())


def test_true_positive_ratio_of_a_hand_example() -> None:
    assert true_positive_ratio(FOUR, TWO) == pytest.approx(1 / 2)
    assert true_positive_ratio(TWO, FOUR) == pytest.approx(1 / 4)


def test_true_positive_ratio_of_nothing_is_undefined() -> None:
    with pytest.raises(ValueError, match="empty"):
        true_positive_ratio(FOUR, NONE)


@given(MASK, MASK, st.data())
def test_true_positive_ratio_is_bounded_and_never_falls_as_the_mask_grows(
    mask: np.ndarray, abnormality: np.ndarray, data: st.DataObject
) -> None:
    abnormality[0, 0] = True
    larger = mask | data.draw(MASK)
    assert 0 <= true_positive_ratio(mask, abnormality) <= true_positive_ratio(larger, abnormality) <= 1
    assert true_positive_ratio(np.ones_like(mask), abnormality) == 1


def test_scores_are_plain_floats() -> None:
    assert type(dice(FOUR, TWO)) is float
    assert type(true_positive_ratio(FOUR, TWO)) is float
