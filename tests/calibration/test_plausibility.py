"""Chest radiographs are told from other images by what the FP32 model finds in them."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from cxredge import Segmenter
from cxredge.errors import CalibrationError
from cxredge.phantom import make_radiograph
from cxredge_calibration.plausibility import require_chest_radiographs, shows_two_lungs


def logits(*ellipses: tuple[int, int, int, int]) -> np.ndarray:
    """``(128, 128)`` logits with ellipses (column, row, half width, half height) above 0."""
    canvas = np.zeros((128, 128), np.uint8)
    for column, row, width, height in ellipses:
        cv2.ellipse(canvas, (column, row), (width, height), 0, 0, 360, 1, cv2.FILLED)
    return np.where(canvas, 3, -3).astype(np.float32)


LEFT, RIGHT = (36, 64, 18, 40), (92, 64, 18, 40)


def test_two_compact_regions_one_on_each_side_are_lungs():
    assert shows_two_lungs(logits(LEFT, RIGHT))
    assert shows_two_lungs(logits(LEFT, RIGHT, (64, 10, 1, 1)))  # a crumb does no harm


@pytest.mark.parametrize(
    "wrong",
    [
        logits(),
        logits(LEFT),
        logits(LEFT, (92, 64, 3, 5)),
        logits((20, 64, 12, 30), (48, 64, 12, 30)),
        logits(LEFT, RIGHT, *[(6 + 10 * i, 6, 2, 2) for i in range(12)]),
        logits(LEFT, RIGHT, (64, 14, 10, 10)),
        -logits(LEFT, RIGHT),
    ],
    ids=["nothing", "one", "tiny", "both on one side", "crumbs", "large third region", "inverted"],
)
def test_other_shapes_are_not(wrong):
    assert not shows_two_lungs(wrong)


def test_ragged_regions_are_not_lungs():
    ragged = logits(LEFT, RIGHT)
    ragged[::4] = -3
    ragged[:, 30:42] = ragged[:, 86:98] = np.abs(ragged[:, 30:42])  # combs, each in one piece
    assert not shows_two_lungs(ragged)


def test_the_bundled_model_tells_made_radiographs_from_noise():
    draw = np.random.default_rng(0)
    with Segmenter.load(threads=1) as segmenter:
        chests = [segmenter(make_radiograph(seed, 256, 256).pixels).logits for seed in range(3)]
        noise = [segmenter(draw.normal(size=(256, 256))).logits for _ in range(3)]
    assert [shows_two_lungs(each) for each in chests] == [True] * 3
    assert [shows_two_lungs(each) for each in noise] == [False] * 3


def test_a_few_strange_samples_among_many_are_let_through():
    require_chest_radiographs([f"n{i}" for i in range(10)], [False] * 3 + [True] * 7)


def test_too_many_strange_samples_are_refused_by_name():
    with pytest.raises(CalibrationError, match=r"no two lungs in 4 of 10 samples \(n0, n1, n2, n3\)"):
        require_chest_radiographs([f"n{i}" for i in range(10)], [False] * 4 + [True] * 6)
