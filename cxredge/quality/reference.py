"""What is usual for a model: the statistics and thresholds of the quality flags, as a contract carries them.

``cxredge thresholds`` derives them from real radiographs; a model without them has the basic flags only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from cxredge.errors import ModelError
from cxredge.quality.typicality import Gaussian

LAYOUT, SHAPE, SIGNAL = "layout", "shape", "signal"
LENGTHS = {LAYOUT: 80, SHAPE: 100, SIGNAL: 3}
"""Numbers in each description of a radiograph, see :mod:`cxredge.quality.evidence`."""
MOST_DIRECTIONS = 64
LARGEST_NUMBER = 1e30
"""No number in a reference is as large, nor infinite."""

INVERTED_POLARITY = "inverted_polarity"
NOT_FRONTAL, OUT_OF_DISTRIBUTION, UNUSUAL_SHAPE = "not_frontal", "out_of_distribution", "unusual_shape"
TINY_LUNG, HUGE_LUNG = "tiny_lung", "huge_lung"
TOUCHES_BORDER, BEYOND_IMAGE = "touches_border", "beyond_image"
RAGGED, FRAGMENTED, LOW_MARGIN = "ragged", "fragmented", "low_margin"
LIMITED = (
    INVERTED_POLARITY,
    NOT_FRONTAL,
    OUT_OF_DISTRIBUTION,
    UNUSUAL_SHAPE,
    TINY_LUNG,
    HUGE_LUNG,
    TOUCHES_BORDER,
    BEYOND_IMAGE,
    RAGGED,
    FRAGMENTED,
    LOW_MARGIN,
)
"""Flags that need a threshold, in the order in which they are given."""


@dataclass(frozen=True)
class Reference:
    """Statistics and thresholds of one model.

    Attributes:
        usual: what is usual of each description in :data:`LENGTHS`.
        limits: threshold of each flag in :data:`LIMITED`.
        source: what they were derived from, as a JSON object.
    """

    usual: dict[str, Gaussian]
    limits: dict[str, float]
    source: dict[str, Any]

    @property
    def statistics(self) -> dict[str, Any]:
        """The contract's ``input_statistics``."""
        return {name: usual.to_dict() for name, usual in self.usual.items()}

    @property
    def thresholds(self) -> dict[str, Any]:
        """The contract's ``flag_thresholds``."""
        return {"limits": self.limits, "source": self.source}


def read_reference(statistics: dict[str, Any] | None, thresholds: dict[str, Any] | None) -> Reference | None:
    """The reference in a contract, or ``None`` where it has none.

    Args:
        statistics: its ``input_statistics``.
        thresholds: its ``flag_thresholds``.

    Raises:
        ModelError: one without the other, or a wrong, missing or unknown entry.
    """
    if statistics is None and thresholds is None:
        return None
    if statistics is None or thresholds is None:
        raise ModelError("contract: input_statistics and flag_thresholds belong together, one is missing")
    require_names("input_statistics", statistics, set(LENGTHS))
    require_names("flag_thresholds", thresholds, {"limits", "source"})
    limits, source = thresholds["limits"], thresholds["source"]
    if not isinstance(limits, dict) or not isinstance(source, dict):
        raise ModelError("contract: flag_thresholds: limits and source must be objects")
    require_names("flag_thresholds: limits", limits, set(LIMITED))
    if not isinstance(source.get("radiographs", {}), dict):
        raise ModelError("contract: flag_thresholds: source: radiographs must be an object")
    for name, limit in limits.items():
        if not is_number(limit):
            raise ModelError(f"contract: flag_thresholds: {name} is not a finite number")
    usual = {name: read_gaussian(name, statistics[name], length) for name, length in LENGTHS.items()}
    return Reference(usual, {name: float(limit) for name, limit in limits.items()}, source)


def read_gaussian(name: str, content: Any, length: int) -> Gaussian:
    """One description's statistics.

    Raises:
        ModelError: malformed, of another length, or a variance that is not positive.
    """
    place = f"input_statistics: {name}"
    if not isinstance(content, dict):
        raise ModelError(f"contract: {place} must be an object")
    require_names(place, content, {"mean", "directions", "variances", "rest"})
    directions = content["directions"]
    if not isinstance(directions, list) or not 1 <= len(directions) <= min(MOST_DIRECTIONS, length - 1):
        raise ModelError(f"contract: {place}: directions must be a list of at most {MOST_DIRECTIONS}")
    rows = [read_numbers(f"{place}: directions", row, length) for row in directions]
    variances = read_numbers(f"{place}: variances", content["variances"], len(rows))
    (rest,) = read_numbers(f"{place}: rest", [content["rest"]], 1)
    if min(*variances, rest) <= 0:
        raise ModelError(f"contract: {place}: variances must be positive")
    mean = read_numbers(f"{place}: mean", content["mean"], length)
    return Gaussian(np.array(mean), np.array(rows), np.array(variances), rest)


def read_numbers(place: str, content: Any, length: int) -> list[float]:
    """A list of ``length`` finite numbers."""
    if not isinstance(content, list) or len(content) != length or not all(is_number(value) for value in content):
        raise ModelError(f"contract: {place} must be {length} finite numbers")
    return [float(value) for value in content]


def is_number(value: Any) -> bool:
    """Whether a JSON value is a finite number of a plausible size."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < LARGEST_NUMBER


def require_names(place: str, content: dict[str, Any], names: set[str]) -> None:
    """Raise :class:`ModelError` unless an object has exactly the given names."""
    unknown, missing = set(content) - names, names - set(content)
    if unknown:
        raise ModelError(f"contract: {place}: unknown {sorted(unknown)[0]!r}; it was made by a newer cxredge")
    if missing:
        raise ModelError(f"contract: {place}: {sorted(missing)[0]!r} is missing")
