"""How much each layer suffers from INT8 when it alone is quantised: signal to noise, and what the masks lose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from numpy.typing import NDArray

from cxredge_calibration.gate import Reference, measure
from cxredge_calibration.layers import Layer
from cxredge_calibration.options import Step
from cxredge_calibration.quantisation import quantise
from cxredge_calibration.simulation import open_session, run, with_outputs

IMAGES = 8
"""Held-back images that a layer's effect on the masks is measured on."""
SIGNAL_IMAGES = 2
"""Of these, images that its signal-to-noise ratio is measured on."""


@dataclass(frozen=True)
class Sensitivity:
    """What INT8 does to one layer.

    Attributes:
        layer: the layer, quantised alone.
        sqnr_db: signal to quantisation noise of its output in decibels.
        disagreement: mean of 1 - Dice between the masks and those of the FP32 model.
        dice_drop: mean fall of Dice against the true lungs, where they are known.
        tpr_drop: mean fall of the true-positive ratio, where there is a labelled abnormality.
    """

    layer: Layer
    sqnr_db: float
    disagreement: float
    dice_drop: float | None
    tpr_drop: float | None


def measure_sensitivity(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    ranges: Mapping[str, tuple[float, float]],
    references: Sequence[Reference],
    threads: int,
    step: Step,
) -> tuple[Sensitivity, ...]:
    """Quantise each layer alone and measure; the most sensitive first.

    Args:
        model: a prepared FP32 graph.
        layers: what to measure.
        ranges: (lowest, highest) value of each layer's source.
        references: held-back images; at most :data:`IMAGES` of them are used.
        threads: CPU threads of one inference.
        step: called after each layer.
    """
    images = spread(references, IMAGES)
    signals = layer_outputs(model, layers, images[:SIGNAL_IMAGES], threads)
    found = []
    for index, layer in enumerate(layers):
        alone = quantise(model, [layer], ranges)
        noisy = layer_outputs(alone, [layer], images[:SIGNAL_IMAGES], threads)[layer.output]
        figures = measure(open_session(alone, threads), images)
        found.append(
            Sensitivity(
                layer,
                signal_to_noise(signals[layer.output], noisy),
                figures.disagreement,
                figures.dice_drop,
                figures.tpr_drop,
            )
        )
        step(index + 1, len(layers))
    return tuple(sorted(found, key=lambda one: (-one.disagreement, one.sqnr_db)))


def spread(references: Sequence[Reference], count: int) -> list[Reference]:
    """At most ``count`` of ``references``, evenly spread over them."""
    places = np.linspace(0, len(references) - 1, min(count, len(references)))
    return [references[int(place)] for place in places]


def layer_outputs(
    model: onnx.ModelProto, layers: Sequence[Layer], references: Sequence[Reference], threads: int
) -> dict[str, list[NDArray[np.float32]]]:
    """What ``layers`` give for each image, by the output's name."""
    names = [layer.output for layer in layers]
    session = open_session(with_outputs(model, names), threads)
    runs = [run(session, reference.input)[1:] for reference in references]
    return {name: [outputs[index] for outputs in runs] for index, name in enumerate(names)}


def signal_to_noise(signals: Sequence[NDArray[np.float32]], noisy: Sequence[NDArray[np.float32]]) -> float:
    """``10 log10(Σ signal² / Σ (noisy − signal)²)`` in decibels, infinite where both are equal."""
    signal = sum(float(np.square(one, dtype=np.float64).sum()) for one in signals)
    noise = sum(
        float(np.square(other - one, dtype=np.float64).sum()) for one, other in zip(signals, noisy, strict=True)
    )
    return float("inf") if noise == 0 else float(10 * np.log10(max(signal, np.finfo(np.float64).tiny) / noise))
