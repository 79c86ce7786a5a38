"""Scoring a model on labelled data sets, as it is and under distribution shift (method, section 6)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxredge.data.dataset import Case, Dataset, files_by_stem
from cxredge.errors import CxredgeError, DatasetError, InputError
from cxredge.evaluation.scoring import (
    bootstrap_interval,
    dice,
    hausdorff_95,
    intersection_over_union,
    true_positive_ratio,
)
from cxredge.evaluation.shift import Level, shifted
from cxredge.preprocessing import MASK_THRESHOLD, network_mask
from cxredge.radiograph import read_radiograph
from cxredge.segmenter import Inferred, Prepared, Segmenter

DICE = "dice"
IOU = "iou"
HD95 = "hd95_pixels"
TPR = "tpr"
TPR_INSIDE = "tpr_inside_lung"
MEASURES = (DICE, IOU, HD95, TPR, TPR_INSIDE)
DEFAULT_SPLITS = ("test", "external-test")
POOR_DICE = 0.8
"""A case below this Dice counts as a failure."""


@dataclass(frozen=True)
class Score:
    """Scores of one case.

    Attributes:
        case: what was scored.
        mask: the predicted mask, at the size at which it was scored.
        measures: by name; a measure that the labels do not allow is absent.
    """

    case: Case
    mask: NDArray[np.bool_]
    measures: dict[str, float]


@dataclass(frozen=True)
class Summary:
    """Scores of one data set at one level of shift."""

    dataset: str
    level: Level
    scores: tuple[Score, ...]

    def values(self, measure: str) -> NDArray[np.float64]:
        """``(N,)`` values of the cases that have ``measure``."""
        return np.array([score.measures[measure] for score in self.scores if measure in score.measures])

    def to_dict(self) -> dict[str, Any]:
        """Statistics of each measure: count, mean, sd, min, max and the 95 % interval of the mean."""
        found = {measure: self.values(measure) for measure in MEASURES}
        statistics: dict[str, Any] = {name: describe(values) for name, values in found.items() if len(values)}
        if len(found[DICE]):
            statistics["share_below_dice_0.8"] = round(float((found[DICE] < POOR_DICE).mean()), 5)
        return {"dataset": self.dataset, "shift": self.level, **statistics}


def describe(values: NDArray[np.float64]) -> dict[str, Any]:
    """Statistics of ``values`` ``(N,)`` as a JSON object."""
    return {
        "count": len(values),
        "mean": round(float(values.mean()), 5),
        "sd": round(float(values.std()), 5),
        "min": round(float(values.min()), 5),
        "max": round(float(values.max()), 5),
        "mean_95": [round(bound, 5) for bound in bootstrap_interval(values)],
    }


def evaluate(
    segmenter: Segmenter, dataset: Dataset, splits: Sequence[str] = DEFAULT_SPLITS, level: Level = "none"
) -> Summary:
    """Score ``segmenter`` on the rows of ``splits``.

    Without shift masks are scored at the radiographs' own size, under shift at network size.

    Raises:
        DatasetError: no such rows, no labels, or an image that cannot be read.
    """
    cases = dataset.split(*splits)
    size = segmenter.contract.input_size

    def prepare(case: Case) -> Prepared:
        return segmenter.prepare(shifted(read_radiograph(case.image), level, case.name, size))

    def finish(case: Case, prepared: Prepared, inferred: Inferred) -> Score:
        mask = segmenter.finish(prepared, inferred).mask
        return Score(case, mask, dict(score_case(case, mask, level)))

    scores = []
    for case, outcome in zip(cases, segmenter.process(cases, prepare, finish), strict=True):
        if isinstance(outcome, CxredgeError):
            raise DatasetError(
                str(outcome) if isinstance(outcome, InputError) and outcome.path else f"{case.image}: {outcome}"
            )
        scores.append(outcome)
    if not any(score.measures for score in scores):
        raise DatasetError(f"{dataset.folder}: has no masks/ or infection/ to score against")
    return Summary(dataset.name, level, tuple(scores))


def evaluate_masks(dataset: Dataset, kind: str, splits: Sequence[str] = DEFAULT_SPLITS) -> Summary:
    """Score masks that stand in the data set, such as a peer's published ones, under the same protocol.

    Args:
        dataset: labelled data set.
        kind: its folder of 0/255 masks, named as the images are; rows without one are left out.
        splits: rows to score.

    Raises:
        DatasetError: no such masks, no labels, or a mask that cannot be read or has another size than its radiograph.
    """
    found = files_by_stem(dataset.folder / kind)
    scores = []
    for case in with_file(dataset, kind).split(*splits):
        mask = read_label(found[case.name], case.radiograph().pixels, "none")
        assert mask is not None
        scores.append(Score(case, mask, dict(score_case(case, mask))))
    return Summary(dataset.name, "none", tuple(scores))


def with_file(dataset: Dataset, kind: str) -> Dataset:
    """The rows of ``dataset`` that have a file in its folder ``kind``.

    Raises:
        DatasetError: there are none.
    """
    found = files_by_stem(dataset.folder / kind)
    cases = tuple(case for case in dataset.cases if case.name in found)
    if not cases:
        raise DatasetError(f"{dataset.folder}: no row has a file in {kind}/")
    return Dataset(dataset.folder, cases)


def score_case(case: Case, predicted: NDArray[np.bool_], level: Level = "none") -> Iterator[tuple[str, float]]:
    """Measures of one case.

    Dice, IoU and HD95 need both lungs in the truth; the true-positive ratio needs an abnormality;
    inside the lung, both. Rows that lack a lung say so with 0 in the columns ``left_lung`` or
    ``right_lung``.
    """
    truth, abnormality = (read_label(path, predicted, level) for path in (case.mask, case.infection))
    both_lungs = "0" not in (case.row.get("left_lung"), case.row.get("right_lung"))
    if truth is not None and both_lungs:
        yield DICE, dice(predicted, truth)
        yield IOU, intersection_over_union(predicted, truth)
        yield HD95, hausdorff_95(predicted, truth)
    if abnormality is not None and abnormality.any():
        yield TPR, true_positive_ratio(predicted, abnormality)
        if truth is not None and both_lungs and (abnormality & truth).any():
            yield TPR_INSIDE, true_positive_ratio(predicted, abnormality & truth)


def read_label(path: Path | None, like: NDArray[np.bool_], level: Level) -> NDArray[np.bool_] | None:
    """A label at the size of ``like``, or ``None`` where there is none; resized under shift only."""
    if path is None:
        return None
    try:
        pixels = read_radiograph(path).pixels
    except CxredgeError as error:
        raise DatasetError(str(error)) from error
    label = pixels > MASK_THRESHOLD if level == "none" else network_mask(pixels, like.shape[0])
    if label.shape != like.shape:
        raise DatasetError(f"{path}: has shape {label.shape}, its radiograph {like.shape}")
    return np.asarray(label)
