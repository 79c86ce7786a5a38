"""Where the thresholds of the quality flags come from: quantiles over real radiographs, never numbers set by hand.

``cxredge thresholds`` runs a model on the training and validation rows of data sets, describes every result as
:mod:`cxredge.quality.flags` does, and takes what is usual from those in which two lungs were found.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cxredge.data.dataset import Case, Dataset, content_hash
from cxredge.errors import CxredgeError, DatasetError
from cxredge.postprocessing import clean_logits, scale_mask
from cxredge.preprocessing import network_input
from cxredge.quality.flags import BELOW, Finding, find, polarity_score
from cxredge.quality.measurements import measure
from cxredge.quality.reference import (
    INVERTED_POLARITY,
    LAYOUT,
    LIMITED,
    LOW_MARGIN,
    NOT_FRONTAL,
    OUT_OF_DISTRIBUTION,
    SHAPE,
    SIGNAL,
    UNUSUAL_SHAPE,
    Reference,
    read_reference,
)
from cxredge.quality.typicality import Vector, fit_gaussian, held_out, stored
from cxredge.segmenter import Inferred, Prepared, Segmenter

SPLITS = ("train", "val")
"""Rows that thresholds may be derived from; test rows are for measuring."""
FEWEST = 100
"""Radiographs with two lungs that are needed."""
DIRECTIONS = {LAYOUT: 8, SHAPE: 8, SIGNAL: 2}
"""Directions of each description; with one fewer than it has numbers the Gaussian is a full one."""
DISTANCES = {NOT_FRONTAL: LAYOUT, UNUSUAL_SHAPE: SHAPE, OUT_OF_DISTRIBUTION: SIGNAL}
"""Flags of the distance of a description from what is usual."""
QUANTILE, MARGIN_QUANTILE = 0.995, 0.98
"""Share of usual radiographs that is not flagged; the margin grades doubt, and those in doubt are looked at sooner."""


@dataclass(frozen=True)
class Described:
    """One radiograph."""

    lungs: int
    finding: Finding


def derive_reference(segmenter: Segmenter, datasets: Sequence[Dataset]) -> Reference:
    """Statistics and thresholds for a model.

    A threshold is the 99.5 % quantile (of ``tiny_lung`` the 0.5 % quantile, of ``low_margin`` the 98 % quantile)
    over the radiographs in which two lungs were found. Distances are taken from the statistics of four fifths of
    them, to which the radiograph itself does not belong. That of ``inverted_polarity`` is such that 99.5 % of them,
    inverted, are beyond it.

    Args:
        segmenter: the model.
        datasets: their rows of :data:`SPLITS` are used.

    Raises:
        DatasetError: no such rows, an image that cannot be read, too few with two lungs, or an inverted radiograph
            cannot be told from one that is not.
    """
    described = {dataset.name: describe(segmenter, dataset) for dataset in datasets}
    usable = [one.finding for found in described.values() for one in found if one.lungs == 2]
    if len(usable) < FEWEST:
        raise DatasetError(f"two lungs were found in {len(usable)} radiographs, at least {FEWEST} are needed")
    vectors = {LAYOUT: np.stack([one.layout for one in usable])}
    vectors |= {name: np.stack([one.vectors[name] for one in usable]) for name in (SHAPE, SIGNAL)}
    statistics = {name: fit_gaussian(found, DIRECTIONS[name]).to_dict() for name, found in vectors.items()}
    source = {
        "radiographs": {name: len(found) for name, found in described.items()},
        "without_two_lungs": sum(map(len, described.values())) - len(usable),
        "splits": list(SPLITS),
        "data_sha256": content_hash(datasets),
        "quantile": QUANTILE,
        "margin_quantile": MARGIN_QUANTILE,
    }
    limits = {flag: limit for flag in LIMITED for limit in stored(np.array([derive_limit(flag, usable, vectors)]))}
    reference = read_reference(statistics, {"limits": limits, "source": source})
    assert reference is not None
    return reference


def derive_limit(flag: str, usable: Sequence[Finding], vectors: dict[str, Vector]) -> float:
    """Threshold of one flag."""
    quantile = MARGIN_QUANTILE if flag == LOW_MARGIN else 1 - QUANTILE if flag in BELOW else QUANTILE
    if flag == INVERTED_POLARITY:
        limit = -float(np.quantile(held_out(vectors[LAYOUT], DIRECTIONS[LAYOUT], polarity_score), quantile))
        if limit <= 0:
            raise DatasetError("inverted radiographs cannot be told from others; are all shown with dark lungs?")
        return limit
    if flag in DISTANCES:
        name = DISTANCES[flag]
        return float(np.quantile(held_out(vectors[name], DIRECTIONS[name]), quantile))
    return float(np.quantile([one.numbers[flag] for one in usable], quantile))


def describe(segmenter: Segmenter, dataset: Dataset) -> list[Described]:
    """Describe the results of one data set, as they are without correcting the polarity.

    Raises:
        DatasetError: no rows, or an image that cannot be read or segmented.
    """
    cases = dataset.split(*SPLITS)

    def prepare(case: Case) -> Prepared:
        radiograph = case.radiograph()
        return Prepared(radiograph, network_input(radiograph, segmenter.contract.input_size), {})

    def finish(_: Case, prepared: Prepared, inferred: Inferred) -> Described:
        clean = clean_logits(inferred.logits)
        measurements = measure(prepared.radiograph, scale_mask(clean, prepared.radiograph.shape))
        pixels = prepared.radiograph.pixels.size
        found = find(prepared.input, inferred.logits, clean > 0, measurements, pixels)
        return Described(0 if measurements.joined else len(measurements.lungs), found)

    found = []
    for case, outcome in zip(cases, segmenter.process(cases, prepare, finish), strict=True):
        if isinstance(outcome, CxredgeError):
            raise DatasetError(f"{case.image}: {outcome}") from outcome
        found.append(outcome)
    return found
