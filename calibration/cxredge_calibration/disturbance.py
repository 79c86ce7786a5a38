"""Shifted copies of the samples: what a strange machine might give, so that the ranges cover it too.

Milder than the evaluation's shift (:mod:`cxredge.evaluation.shift`) and drawn from seeds of its own: with u the
network's input in [0, 1] and ū its mean, ``v = ((u − ū)·c + ū)·b`` is clipped to [0, 1], gets Gaussian
noise, and goes through the network's min-max normalisation like any other image.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

SPREAD = 0.2
"""Contrast c and intensity b are drawn from ``1 ± SPREAD``."""
LARGEST_NOISE = 0.05
"""Largest standard deviation of the noise on the scale of u; the evaluation's weak shift has 0.25."""


def disturbed(pixels: NDArray[np.float32], name: str) -> NDArray[np.float32]:
    """A shifted copy of a network input.

    Args:
        pixels: ``(S, S)`` in [-1, 1], not constant.
        name: of the sample; it seeds the draw.

    Returns:
        ``(S, S)`` float32, its lowest value -1 and its highest 1.
    """
    seed = hashlib.sha256(f"calibration/{name}".encode()).digest()[:8]
    generator = np.random.default_rng(int.from_bytes(seed, "little"))
    u = pixels.astype(np.float64) / 2 + 0.5
    contrast, intensity = generator.uniform(1 - SPREAD, 1 + SPREAD, 2)
    v = np.clip(((u - u.mean()) * contrast + u.mean()) * intensity, 0, 1)
    v += generator.normal(0, generator.uniform(0, LARGEST_NOISE), v.shape)
    return np.asarray(2 * (v - v.min()) / (v.max() - v.min()) - 1, np.float32)
