"""Parity: an engine that segments otherwise than the model does not pass."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cxredge.engine.flavour import Flavour
from cxredge.engine.parity import EngineParity, measure_parity, require_parity
from cxredge.engine.record import Batches
from cxredge.errors import BackendError, EngineError

from .conftest import TINY

pytestmark = pytest.mark.usefixtures("polygraphy")

Logits = NDArray[np.float32]


class Made:
    """A backend whose logits are a function of its inputs; keeps the batch sizes that it saw."""

    name, contract, lanes = "made", TINY, 1

    def __init__(self, function: Callable[[Logits], Logits] = lambda x: x) -> None:
        self.function, self.batches = function, list[int]()

    def run(self, inputs: Logits) -> Logits:
        self.batches.append(len(inputs))
        return self.function(inputs[:, 0].copy())

    def close(self) -> None:
        pass


OTHER = Flavour("tensorrt", "10.16.1.11", None)
"""Not the one that Polygraphy was imported for: nothing of TensorRT is called."""


def measured(engine: Made, reference: Made, inputs: Logits, batches: Batches, precision: str) -> EngineParity:
    return measure_parity(engine, reference, inputs, batches, precision, OTHER)


@pytest.fixture
def inputs() -> Logits:
    return np.random.default_rng(0).normal(size=(3, 1, 32, 32)).astype(np.float32)


def test_the_same_logits_pass(inputs: Logits) -> None:
    parity = measured(Made(), Made(), inputs, (1, 4, 16), "fp32")
    require_parity(parity)
    assert (parity.flipped_pixels, parity.max_abs_difference, parity.passed) == (0, 0.0, True)


def test_every_batch_of_the_profile_is_run_and_every_image_seen(inputs: Logits) -> None:
    engine = Made()
    parity = measured(engine, Made(), inputs, (2, 2, 16), "fp32")
    assert engine.batches == [2, 2, 16]
    assert parity.batches == (2, 16)
    assert parity.pixels == 20 * 32 * 32


def test_flipped_pixels_are_counted_and_refused(inputs: Logits) -> None:
    def flip(logits: Logits) -> Logits:
        logits[:, :2] *= -1
        return logits

    parity = measured(Made(flip), Made(), inputs, (1, 1, 1), "int8")
    assert parity.flipped_pixels == 3 * 2 * 32
    with pytest.raises(
        EngineError, match=r"masks differ from those of made: 192 of 3072 pixels flipped \(allowed: 9\)"
    ):
        require_parity(parity)


def test_an_engine_that_is_wrong_in_large_batches_only_is_refused(inputs: Logits) -> None:
    engine = Made(lambda logits: logits if len(logits) == 1 else -logits)
    assert not measured(engine, Made(), inputs, (1, 4, 4), "fp16").passed


def test_images_that_are_mixed_up_in_a_batch_are_refused(inputs: Logits) -> None:
    assert not measured(Made(lambda logits: logits[::-1]), Made(), inputs, (3, 3, 3), "fp16").passed


def test_a_model_that_mixes_up_images_as_its_engine_does_is_refused(inputs: Logits) -> None:
    def mix(logits: Logits) -> Logits:
        return logits[::-1].copy()

    assert not measured(Made(mix), Made(mix), inputs, (3, 3, 3), "fp16").passed


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda logits: logits[:1], r"logits of shape \(1, 32, 32\), not \(3, 32, 32\)"),
        (lambda logits: logits[:, :16], r"logits of shape \(3, 16, 32\), not \(3, 32, 32\)"),
        (lambda logits: None, "cannot be compared"),
    ],
)
def test_what_are_no_logits_of_the_batch_is_refused(spoil: Any, reason: str, inputs: Logits) -> None:
    with pytest.raises(EngineError, match=reason):
        measured(Made(spoil), Made(), inputs, (3, 3, 3), "fp16")


def test_inputs_that_are_not_the_network_s_are_refused(inputs: Logits) -> None:
    with pytest.raises(BackendError, match=r"the model takes float32 \(N, 1, 32, 32\)"):
        measured(Made(), Made(), np.concatenate([inputs, inputs], axis=1), (1, 1, 1), "fp16")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_logits_that_are_no_numbers_are_refused_wherever_they_are(value: float, inputs: Logits) -> None:
    def spoil(logits: Logits) -> Logits:
        logits[0, 0, 0] = value
        return logits

    parity = measured(Made(spoil), Made(), np.abs(inputs), (1, 1, 1), "fp16")
    assert not parity.finite
    with pytest.raises(EngineError, match="not numbers"):
        require_parity(parity)


@pytest.mark.parametrize(("precision", "passes"), [("fp32", False), ("fp16", True), ("int8", True)])
def test_rounding_is_tolerated_as_the_precision_has_it(precision: str, passes: bool, inputs: Logits) -> None:
    def flip_one(logits: Logits) -> Logits:
        logits[0, 0, 0] *= -1
        return logits

    assert measured(Made(flip_one), Made(), inputs, (3, 3, 3), precision).passed == passes


def test_without_images_nothing_is_proved(inputs: Logits) -> None:
    with pytest.raises(EngineError, match="at least one radiograph"):
        measured(Made(), Made(), inputs[:0], (1, 1, 1), "fp32")


def test_the_figures_travel_as_json(inputs: Logits) -> None:
    figures = measured(Made(), Made(), inputs, (1, 4, 16), "fp32").to_dict()
    assert json.loads(json.dumps(figures)) == figures
    assert figures["batches"] == [1, 4, 16]
