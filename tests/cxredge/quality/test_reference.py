"""The statistics and thresholds in a contract: they survive the trip, and nothing malformed gets through."""

from __future__ import annotations

import copy
import json
from typing import Any

import numpy as np
import pytest

from cxredge.errors import ModelError
from cxredge.quality.reference import LENGTHS, LIMITED, Reference, read_reference
from cxredge.quality.typicality import fit_gaussian


def made_reference(**limits: float) -> Reference:
    """Made-up statistics, and thresholds that nothing exceeds but for those given."""
    rng = np.random.default_rng(3)
    statistics = {name: fit_gaussian(rng.normal(size=(200, n)), 2).to_dict() for name, n in LENGTHS.items()}
    beyond_all = {name: -1e9 if name == "tiny_lung" else 1e9 for name in LIMITED}
    thresholds = {"limits": {**beyond_all, **limits}, "source": {"radiographs": {"made": 200}}}
    reference = read_reference(statistics, thresholds)
    assert reference is not None
    return reference


STATISTICS, THRESHOLDS = made_reference().statistics, made_reference().thresholds


def test_what_is_read_is_what_was_stored() -> None:
    texts = [json.dumps(one) for one in (STATISTICS, THRESHOLDS)]
    again = read_reference(*map(json.loads, texts))
    assert again.statistics == STATISTICS
    assert again.thresholds == THRESHOLDS


def test_a_contract_may_have_neither_but_not_one_without_the_other() -> None:
    assert read_reference(None, None) is None
    for given in ((STATISTICS, None), (None, THRESHOLDS)):
        with pytest.raises(ModelError, match="belong together"):
            read_reference(*given)


def without(content: dict[str, Any], *path: str) -> dict[str, Any]:
    """A copy of nested objects that lacks one entry."""
    copied = copy.deepcopy(content)
    inner = copied
    for name in path[:-1]:
        inner = inner[name]
    del inner[path[-1]]
    return copied


def with_value(content: dict[str, Any], value: Any, *path: str) -> dict[str, Any]:
    """A copy of nested objects in which one entry has another value."""
    copied = copy.deepcopy(content)
    inner = copied
    for name in path[:-1]:
        inner = inner[name]
    inner[path[-1]] = value
    return copied


@pytest.mark.parametrize("path", [("layout",), ("shape", "mean"), ("signal", "rest"), ("signal", "directions")])
def test_a_missing_statistic_is_named(path: tuple[str, ...]) -> None:
    with pytest.raises(ModelError, match=f"'{path[-1]}' is missing"):
        read_reference(without(STATISTICS, *path), THRESHOLDS)


@pytest.mark.parametrize("path", [("limits",), ("source",), ("limits", "ragged")])
def test_a_missing_threshold_is_named(path: tuple[str, ...]) -> None:
    with pytest.raises(ModelError, match=f"'{path[-1]}' is missing"):
        read_reference(STATISTICS, without(THRESHOLDS, *path))


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ([1, 2], ("shape", "mean")),
        (["1"] * 3, ("signal", "mean")),
        ([True, 1, 1], ("signal", "mean")),
        ([float("inf"), 1, 1], ("signal", "mean")),
        ([10**400, 1, 1], ("signal", "mean")),
        ("text", ("shape", "mean")),
        ([], ("signal", "directions")),
        ([[0.1] * 3] * 3, ("signal", "directions")),
        ([[0.1] * 3, [0.1] * 2], ("signal", "directions")),
        ([[0.1] * 80] * 65, ("layout", "directions")),
        ([1.0, 0.0], ("signal", "variances")),
        (-1, ("signal", "rest")),
        (None, ("signal", "rest")),
        (5, ("signal",)),
        ({}, ("future",)),
    ],
)
def test_malformed_statistics_are_refused(value: Any, path: tuple[str, ...]) -> None:
    with pytest.raises(ModelError, match="input_statistics"):
        read_reference(with_value(STATISTICS, value, *path), THRESHOLDS)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ("0.5", ("limits", "ragged")),
        (float("nan"), ("limits", "ragged")),
        (1, ("limits", "future_flag")),
        ([], ("limits",)),
        (3, ("source",)),
        ([1], ("source", "radiographs")),
    ],
)
def test_malformed_thresholds_are_refused(value: Any, path: tuple[str, ...]) -> None:
    with pytest.raises(ModelError, match="flag_thresholds"):
        read_reference(STATISTICS, with_value(THRESHOLDS, value, *path))
