"""Failures get the name that a person would give them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import pytest

from cxredge.data.dataset import Case
from cxredge.evaluation.evaluate import DICE, POOR_DICE, TPR_INSIDE, Score, Summary, score_case
from cxredge.evaluation.failures import CATEGORIES, OTHER, SIDE, Mismatch, categorise, failure_table
from cxredge.evaluation.shift import Level
from cxredge.runs.results import mask_png

Box = tuple[int, int, int, int]


def boxes(*corners: Box) -> np.ndarray:
    """``(256, 256)`` True inside the boxes (top, left, bottom, right)."""
    mask = np.zeros((SIDE, SIDE), bool)
    for top, left, bottom, right in corners:
        mask[top:bottom, left:right] = True
    return mask


LEFT, RIGHT = boxes((50, 30, 200, 100)), boxes((50, 150, 200, 220))
LUNGS = LEFT | RIGHT
HEART = boxes((80, 100, 200, 150))
BESIDE = boxes((50, 220, 200, 256), (50, 0, 200, 30), (10, 0, 50, 256))
BASES, APICES = boxes((145, 30, 200, 220)), boxes((50, 30, 100, 220))
NARROW = boxes((50, 60, 200, 80), (50, 180, 200, 200))
NOTHING = boxes()


@dataclass
class Cases:
    """Writes labels into a folder and scores a mask against them."""

    folder: Path

    def score(
        self,
        predicted: np.ndarray,
        truth: np.ndarray | None = LUNGS,
        infection: np.ndarray | None = None,
        *,
        level: Level = "none",
        name: str = "a",
    ) -> Score:
        mask, abnormality = (self.write(kind, name, label) for kind, label in (("m", truth), ("i", infection)))
        case = Case(name, "test", self.folder / "image.png", mask, abnormality, {})
        return Score(case, predicted, dict(score_case(case, predicted, level)))

    def write(self, kind: str, name: str, label: np.ndarray | None) -> Path | None:
        if label is None:
            return None
        path = self.folder / f"{name}-{kind}.png"
        path.write_bytes(mask_png(label))
        return path


@pytest.fixture
def cases(tmp_path: Path) -> Cases:
    return Cases(tmp_path)


def enlarged(mask: np.ndarray, factor: float) -> np.ndarray:
    return cv2.resize(mask.astype(np.uint8), None, fx=factor, fy=factor, interpolation=cv2.INTER_NEAREST) > 0


FAILURES = {
    "nothing_found": NOTHING,
    "missing_lung": LEFT | boxes((50, 150, 80, 220)),
    "missed_base": LUNGS & ~BASES,
    "missed_apex": LUNGS & ~APICES & ~boxes((50, 40, 115, 220)),
    "heart_included": LUNGS | boxes((50, 100, 200, 150)) | boxes((30, 30, 50, 220)),
    "leak_outside": LUNGS | BESIDE,
}


@pytest.mark.parametrize(("category", "predicted"), FAILURES.items())
@pytest.mark.parametrize("factor", [0.5, 1, 3])
def test_a_failure_gets_its_name_at_every_image_size(
    cases: Cases, category: str, predicted: np.ndarray, factor: float
) -> None:
    score = cases.score(enlarged(predicted, factor), enlarged(LUNGS, factor))
    assert score.measures[DICE] < POOR_DICE
    assert categorise(score, "none") == category


def test_under_shift_labels_are_compared_at_the_size_of_the_prediction(cases: Cases) -> None:
    score = cases.score(enlarged(LEFT, 0.25), enlarged(LUNGS, 2), level="harsh")
    assert categorise(score, "harsh") == "missing_lung"


def test_a_good_case_has_no_failure(cases: Cases) -> None:
    assert categorise(cases.score(LUNGS), "none") is None
    assert categorise(cases.score(LUNGS, infection=LEFT), "none") is None


def test_a_case_without_lung_labels_is_not_judged(cases: Cases) -> None:
    assert categorise(cases.score(NOTHING, truth=None, infection=LEFT), "none") is None


def test_a_thin_deviation_all_around_is_other(cases: Cases) -> None:
    eroded = cv2.erode(NARROW.astype(np.uint8), np.ones((9, 9))) > 0
    assert categorise(cases.score(eroded, NARROW), "none") == OTHER
    assert categorise(cases.score(NARROW, eroded), "none") == OTHER


def test_a_missed_opacity_comes_before_the_place_where_it_lies(cases: Cases) -> None:
    predicted = LUNGS & ~BASES
    assert categorise(cases.score(predicted, infection=BASES & LUNGS), "none") == "missed_opacity"


def test_an_opacity_is_not_to_blame_where_the_lung_around_it_is_missed_as_often(cases: Cases) -> None:
    predicted = LUNGS & ~BASES
    wide = LUNGS & ~boxes((50, 30, 200, 40), (50, 210, 200, 220))
    score = cases.score(predicted, infection=wide)
    assert categorise(score, "none") == "missed_base"


def test_a_case_that_is_poor_in_its_abnormality_alone_has_missed_that(cases: Cases) -> None:
    opacity = boxes((180, 30, 200, 60))
    score = cases.score((LUNGS & ~opacity) | boxes((50, 220, 200, 240)), infection=opacity)
    assert score.measures[DICE] > POOR_DICE
    assert score.measures[TPR_INSIDE] == 0
    assert categorise(score, "none") == "missed_opacity"


def test_the_larger_kind_of_error_decides(cases: Cases) -> None:
    missed = LUNGS & ~boxes((170, 30, 200, 220))
    assert categorise(cases.score(missed | HEART | BESIDE), "none") == "leak_outside"
    assert categorise(cases.score(LUNGS & ~BASES | boxes((190, 100, 200, 150))), "none") == "missed_base"


def test_touching_lungs_are_told_apart(cases: Cases) -> None:
    joined = LUNGS | boxes((50, 100, 60, 150))
    assert categorise(cases.score(RIGHT, joined), "none") == "missing_lung"


def test_specks_of_the_truth_are_no_lungs() -> None:
    speck = boxes((10, 10, 14, 14))
    left, right = Mismatch(NOTHING, LUNGS | speck, NOTHING).lungs
    np.testing.assert_array_equal(left, LEFT)
    np.testing.assert_array_equal(right, RIGHT)


def test_lungs_where_there_are_none_have_leaked(cases: Cases) -> None:
    assert categorise(cases.score(LUNGS, NOTHING), "none") == "leak_outside"


def test_table_lists_poor_cases_by_category_in_a_fixed_order(cases: Cases) -> None:
    scores = [
        cases.score(LUNGS | BESIDE, name="leak"),
        cases.score(LEFT, name="first"),
        cases.score(LUNGS, name="good"),
        cases.score(RIGHT, name="second"),
    ]
    table = failure_table(Summary("made", "none", tuple(scores)))
    assert list(table.items()) == [("missing_lung", ["first", "second"]), ("leak_outside", ["leak"])]
    assert set(table) <= set(CATEGORIES)


def test_table_of_good_cases_is_empty(cases: Cases) -> None:
    assert failure_table(Summary("made", "none", (cases.score(LUNGS),))) == {}
