"""Why a case is poor: the error analysis of an evaluation, by simple rules on two masks.

:mod:`cxredge.evaluation.evaluate` says how poor a case is; this module looks at where prediction and truth
differ and names the failure. Each rule is one function; the first that holds gives the category.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from cxredge.evaluation.evaluate import DICE, POOR_DICE, TPR_INSIDE, Score, Summary, read_label
from cxredge.evaluation.scoring import distance_to
from cxredge.evaluation.shift import Level
from cxredge.libraries.open_cv import cv2
from cxredge.postprocessing import CONNECTIVITY
from cxredge.preprocessing import network_mask

POOR_TPR = 0.8
"""A case whose mask covers less of the abnormality inside the lung counts as a failure."""
SIDE = 256
"""Masks are compared at this size, so that the rules see every image at one scale."""
FOUND_SHARE = 0.1
"""A prediction that covers less of the truth has found nothing."""
COVERED_SHARE = 0.5
"""A lung that is covered by less is missing."""
LUNG_SHARE = 0.1
"""A component of the truth with a smaller share of its area is no lung of its own."""
RIM = 4
"""Wrong pixels this close to the other mask are a matter of where one draws the line, and count for nothing."""
MARGIN = 10
"""Pixels around the truth beyond which a prediction has leaked (4 % of the side)."""
LEAK_SHARE = 0.1
"""A prediction with a larger share beyond the margin leaks."""
PLACE_SHARE = 0.03
"""Wrong pixels in a smaller number, of that of the truth, say nothing about the place."""
MAIN_SHARE = 0.5
"""A place that holds at least this share of the wrong pixels is where the case went wrong."""
OPACITY_LIFT = 1.5
"""An opacity is to blame where it is missed as many times more often than the rest of the lung."""


@dataclass(frozen=True)
class Mismatch:
    """A prediction beside its truth.

    Attributes:
        predicted: ``(256, 256)`` predicted lungs.
        truth: ``(256, 256)`` true lungs.
        opacity: ``(256, 256)`` labelled abnormality inside the true lungs; empty where there is no label.
    """

    predicted: NDArray[np.bool_]
    truth: NDArray[np.bool_]
    opacity: NDArray[np.bool_]

    @cached_property
    def missed(self) -> NDArray[np.bool_]:
        """Lung that was not found, beyond the rim."""
        return self.truth & (distance_to(self.predicted) > RIM)

    @cached_property
    def extra(self) -> NDArray[np.bool_]:
        """What was taken for lung, beyond the rim."""
        return self.predicted & (distance_to(self.truth) > RIM)

    @cached_property
    def lungs(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """The true lungs from left to right: the two largest components, or both halves where they touch."""
        _, labels, stats, centres = cv2.connectedComponentsWithStats(
            self.truth.astype(np.uint8), connectivity=CONNECTIVITY, ltype=cv2.CV_32S
        )
        areas = stats[1:, cv2.CC_STAT_AREA]
        large = [index for index in 1 + np.argsort(-areas)[:2] if areas[index - 1] >= LUNG_SHARE * areas.sum()]
        if len(large) == 2:
            left, right = sorted(large, key=lambda index: float(centres[index, 0]))
            return labels == left, labels == right
        columns = np.flatnonzero(self.truth.any(axis=0))
        in_left_half = np.arange(self.truth.shape[1]) <= (columns.min(initial=SIDE) + columns.max(initial=0)) // 2
        return self.truth & in_left_half, self.truth & ~in_left_half


def nothing_found(mismatch: Mismatch) -> bool:
    """Less than a tenth of the truth is predicted."""
    return bool(mismatch.truth.any()) and share(mismatch.truth, mismatch.predicted) < FOUND_SHARE


def missing_lung(mismatch: Mismatch) -> bool:
    """Less than half of one of the lungs is predicted."""
    return any(lung.any() and share(lung, mismatch.predicted) < COVERED_SHARE for lung in mismatch.lungs)


def missed_opacity(mismatch: Mismatch) -> bool:
    """Most of what was missed is labelled abnormality, which was missed more often than the lung around it."""
    if not mostly(mismatch, mismatch.missed, mismatch.opacity):
        return False
    clear = mismatch.truth & ~mismatch.opacity
    return share(mismatch.opacity, mismatch.missed) >= OPACITY_LIFT * share(clear, mismatch.missed)


def missed_base(mismatch: Mismatch) -> bool:
    """Most of what was missed lies in the lower third of its lung."""
    return mostly(mismatch, mismatch.missed, band(mismatch, 2 / 3, 1))


def missed_apex(mismatch: Mismatch) -> bool:
    """Most of what was missed lies in the upper third of its lung."""
    return mostly(mismatch, mismatch.missed, band(mismatch, 0, 1 / 3))


def heart_included(mismatch: Mismatch) -> bool:
    """Most of what was taken for lung lies between the lungs."""
    return mostly(mismatch, mismatch.extra, between(*mismatch.lungs))


def leak_outside(mismatch: Mismatch) -> bool:
    """A large share of the prediction is farther from the truth than the margin."""
    return share(mismatch.predicted, distance_to(mismatch.truth) > MARGIN) > LEAK_SHARE


Rule = Callable[[Mismatch], bool]
GROSS_RULES: tuple[Rule, ...] = (nothing_found, missing_lung)
MISSED_RULES: tuple[Rule, ...] = (missed_opacity, missed_base, missed_apex)
EXTRA_RULES: tuple[Rule, ...] = (heart_included, leak_outside)
OTHER = "other"
CATEGORIES = (*(rule.__name__ for rule in (*GROSS_RULES, *MISSED_RULES, *EXTRA_RULES)), OTHER)
"""Names of the categories in the order of the tables; each is a rule's."""


def categorise(score: Score, level: Level) -> str | None:
    """Name the failure of a case.

    Gross failures come first. A case that is poor in its abnormality alone has missed that, wherever
    it lies. Of all others the kind of error that has more pixels gives the rules, missed or extra.

    Args:
        score: of the case.
        level: of shift at which it was scored.

    Returns:
        One of :data:`CATEGORIES`, or ``None`` for a case that is not poor.

    Raises:
        DatasetError: a label cannot be read.
    """
    poor_dice = score.measures.get(DICE, 1.0) < POOR_DICE
    if not poor_dice and score.measures.get(TPR_INSIDE, 1.0) >= POOR_TPR:
        return None
    mismatch = compare(score, level)
    if not poor_dice:
        rules, otherwise = GROSS_RULES, missed_opacity.__name__
    elif mismatch.extra.sum() > mismatch.missed.sum():
        rules, otherwise = (*GROSS_RULES, *EXTRA_RULES), OTHER
    else:
        rules, otherwise = (*GROSS_RULES, *MISSED_RULES), OTHER
    return next((rule.__name__ for rule in rules if rule(mismatch)), otherwise)


def failure_table(summary: Summary) -> dict[str, list[str]]:
    """Names of the poor cases of a data set by category, in the order of :data:`CATEGORIES`; none is empty."""
    found = [(categorise(score, summary.level), score.case.name) for score in summary.scores]
    table = {category: [name for why, name in found if why == category] for category in CATEGORIES}
    return {category: names for category, names in table.items() if names}


def compare(score: Score, level: Level) -> Mismatch:
    """The masks of a case that has lung truth, at the size of the rules."""
    truth = read_label(score.case.mask, score.mask, level)
    if truth is None:
        raise ValueError(f"{score.case.name}: has no lung mask to compare with")
    infection = read_label(score.case.infection, score.mask, level)
    opacity = np.zeros_like(truth) if infection is None else infection & truth
    return Mismatch(*(network_mask(np.where(mask, 255, 0), SIDE) for mask in (score.mask, truth, opacity)))


def share(whole: NDArray[np.bool_], part: NDArray[np.bool_]) -> float:
    """Share of the pixels of ``whole`` that are in ``part`` too; 0 where there are none."""
    area = int(whole.sum())
    return int((whole & part).sum()) / area if area else 0.0


def mostly(mismatch: Mismatch, wrong: NDArray[np.bool_], place: NDArray[np.bool_]) -> bool:
    """Whether a ``place`` holds most of the ``wrong`` pixels, and there are enough of them to say so."""
    enough = int(wrong.sum()) >= PLACE_SHARE * int(mismatch.truth.sum())
    return enough and share(wrong, place) >= MAIN_SHARE


def band(mismatch: Mismatch, top: float, bottom: float) -> NDArray[np.bool_]:
    """The part of each true lung between two shares of its height, 0 at its apex and 1 at its base."""
    found = np.zeros_like(mismatch.truth)
    for lung in mismatch.lungs:
        rows = np.flatnonzero(lung.any(axis=1))
        if len(rows):
            height = np.arange(lung.shape[0])[:, None] - rows[0]
            found |= lung & (height >= top * len(rows)) & (height <= bottom * len(rows))
    return found


def between(left: NDArray[np.bool_], right: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels with the one lung to their left and the other to their right, in the same row."""
    left_of = np.logical_or.accumulate(left, axis=1)
    right_of = np.logical_or.accumulate(right[:, ::-1], axis=1)[:, ::-1]
    return np.asarray(left_of & right_of & ~left & ~right)
