"""Scoring a model on labelled data sets: Dice of the lungs, true-positive ratio of abnormalities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxredge.dataset import Case, Dataset
from cxredge.errors import CxredgeError, DatasetError
from cxredge.preprocessing import MASK_THRESHOLD
from cxredge.radiograph import read_radiograph
from cxredge.scoring import dice, true_positive_ratio
from cxredge.segmenter import Segmenter

DICE = "dice"
TPR = "tpr"
TPR_INSIDE = "tpr_inside_lung"
DEFAULT_SPLITS = ("test", "external-test")


@dataclass(frozen=True)
class Score:
    """Scores of one case, by measure; a measure that its labels do not allow is absent."""

    name: str
    measures: dict[str, float]


@dataclass(frozen=True)
class Summary:
    """Scores of one data set.

    Attributes:
        dataset: its name.
        scores: of each case.
    """

    dataset: str
    scores: tuple[Score, ...]

    def values(self, measure: str) -> NDArray[np.float64]:
        """``(N,)`` values of the cases that have ``measure``."""
        return np.array([score.measures[measure] for score in self.scores if measure in score.measures])

    def to_dict(self) -> dict[str, Any]:
        """Count, mean, standard deviation and minimum of each measure, and every case's scores."""
        found = {measure: self.values(measure) for measure in (DICE, TPR, TPR_INSIDE)}
        statistics = {
            measure: {
                "count": len(values),
                "mean": round(float(values.mean()), 5),
                "sd": round(float(values.std()), 5),
                "min": round(float(values.min()), 5),
            }
            for measure, values in found.items()
            if len(values)
        }
        return {"dataset": self.dataset, **statistics}


def evaluate(segmenter: Segmenter, dataset: Dataset, splits: Sequence[str] = DEFAULT_SPLITS) -> Summary:
    """Score ``segmenter`` on the rows of ``splits``.

    Raises:
        DatasetError: no such rows, no labels, or an image that cannot be read.
    """
    cases = dataset.split(*splits)
    outcomes = segmenter.stream((case.image for case in cases), return_errors=True)
    scores = []
    for case, outcome in zip(cases, outcomes, strict=True):
        if isinstance(outcome, CxredgeError):
            raise DatasetError(f"{case.image}: {outcome}")
        measures = dict(score_case(case, outcome.mask))
        if measures:
            scores.append(Score(case.name, measures))
    if not scores:
        raise DatasetError(f"{dataset.folder}: has no masks/ or infection/ to score against")
    return Summary(dataset.name, tuple(scores))


def score_case(case: Case, predicted: NDArray[np.bool_]) -> Iterator[tuple[str, float]]:
    """Measures of one case by the protocol of the method (section 6).

    Dice needs both lungs in the truth; the true-positive ratio needs an abnormality; inside the lung,
    both. Rows that lack a lung say so with 0 in the columns ``left_lung`` or ``right_lung``.
    """
    truth, abnormality = read_label(case.mask, predicted), read_label(case.infection, predicted)
    both_lungs = "0" not in (case.row.get("left_lung"), case.row.get("right_lung"))
    if truth is not None and both_lungs:
        yield DICE, dice(predicted, truth)
    if abnormality is not None and abnormality.any():
        yield TPR, true_positive_ratio(predicted, abnormality)
        if truth is not None and both_lungs and (abnormality & truth).any():
            yield TPR_INSIDE, true_positive_ratio(predicted, abnormality & truth)


def read_label(path: Path | None, like: NDArray[np.bool_]) -> NDArray[np.bool_] | None:
    """A label at the size of its radiograph, or ``None`` where there is none."""
    if path is None:
        return None
    try:
        label = read_radiograph(path).pixels > MASK_THRESHOLD
    except CxredgeError as error:
        raise DatasetError(f"{path}: {error}") from error
    if label.shape != like.shape:
        raise DatasetError(f"{path}: has shape {label.shape}, its radiograph {like.shape}")
    return label
