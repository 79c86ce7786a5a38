"""How far a vector is from the usual: a Gaussian with a few directions of its own and equal spread in all others.

This is probabilistic principal component analysis (Tipping & Bishop 1999); the distance is that of Moghaddam & Pentland
(1997): within the directions by their variances, and beyond them by the mean variance of the rest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
FOLDS = 5
"""Parts into which vectors are split for :func:`held_out`."""
SMALLEST_VARIANCE = 1e-9
DIGITS = 5
"""Significant digits that are stored of each number."""


@dataclass(frozen=True)
class Gaussian:
    """What is usual.

    Attributes:
        mean: ``(D,)``.
        directions: ``(K, D)`` orthonormal rows.
        variances: ``(K,)`` along the directions, positive.
        rest: variance in each other direction, positive.
    """

    mean: Vector
    directions: Vector
    variances: Vector
    rest: float

    def distance(self, vector: Vector) -> float:
        """Squared distance of a vector ``(D,)`` from the mean, in variances; D on average."""
        offset = vector - self.mean
        along = self.directions @ offset
        beyond = max(0.0, float(offset @ offset - along @ along))
        return float(np.square(along) @ (1 / self.variances)) + beyond / self.rest

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object, each number with five significant digits."""
        return {
            "mean": stored(self.mean),
            "directions": [stored(direction) for direction in self.directions],
            "variances": stored(self.variances),
            "rest": stored(np.array([self.rest]))[0],
        }


def stored(values: Vector) -> list[float]:
    """Numbers as they are kept in a contract."""
    return [float(f"{value:.{DIGITS}g}") for value in values]


def fit_gaussian(vectors: Vector, count: int) -> Gaussian:
    """The Gaussian of ``vectors`` ``(N, D)`` with ``count`` < D directions of its own."""
    mean = vectors.mean(axis=0)
    _, singular, directions = np.linalg.svd(vectors - mean, full_matrices=False)
    variances = np.maximum(np.square(singular) / len(vectors), SMALLEST_VARIANCE)
    rest = float(variances[count:].sum() / (vectors.shape[1] - count))
    return Gaussian(mean, directions[:count], variances[:count], max(rest, SMALLEST_VARIANCE))


def held_out(vectors: Vector, count: int, score: Callable[[Gaussian, Vector], float] = Gaussian.distance) -> Vector:
    """Score ``(N,)`` of each vector against the Gaussian of the four fifths to which it does not belong."""
    part = np.arange(len(vectors)) % FOLDS
    scores = np.empty(len(vectors))
    for fold in range(FOLDS):
        usual = fit_gaussian(vectors[part != fold], count)
        scores[part == fold] = [score(usual, vector) for vector in vectors[part == fold]]
    return scores
