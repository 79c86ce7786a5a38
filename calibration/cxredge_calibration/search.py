"""Which layers stay in floating point: the most sensitive, one after another, until the gate is passed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cxredge_calibration.gate import GateFigures
from cxredge_calibration.layers import Layer
from cxredge_calibration.options import Step


@dataclass(frozen=True)
class Trial:
    """A choice of layers, and how it did.

    Attributes:
        left: layers that stay in floating point.
        figures: on the held-back images.
        passed: whether the drop is within the limit.
    """

    left: tuple[Layer, ...]
    figures: GateFigures
    passed: bool


def leave_layers_out(
    ranked: Sequence[Layer],
    measure: Callable[[Sequence[Layer]], GateFigures],
    max_drop: float,
    least_quantised: float,
    step: Step,
) -> tuple[Trial, ...]:
    """Leave out the most sensitive layers one after another until the gate is passed.

    Args:
        ranked: all quantisable layers, the most sensitive first.
        measure: figures of a model in which the given layers are quantised.
        max_drop: largest drop that passes.
        least_quantised: share of the layers' multiply-accumulates that must stay in INT8.
        step: called after each trial.

    Returns:
        The trials in order; only the last can have passed.
    """
    least = least_quantised * sum(layer.macs for layer in ranked)
    trials: list[Trial] = []
    for left in range(len(ranked)):
        if trials and (trials[-1].passed or sum(layer.macs for layer in ranked[left:]) < least):
            break
        figures = measure(ranked[left:])
        trials.append(Trial(tuple(ranked[:left]), figures, passes(figures, max_drop)))
        step(len(trials), len(trials) if trials[-1].passed else len(ranked))
    return tuple(trials)


def passes(figures: GateFigures, max_drop: float) -> bool:
    """Whether all images were measured and the drop is within the limit."""
    return figures.complete and figures.drop <= max_drop
