"""The distribution shift of the evaluation: a radiograph as a stranger's machine might give it.

Paper, section 4.3: intensity and contrast scaled at random, then Gaussian noise. The paper gives
neither the noise's unit nor the stage; method.md of this project fixes both, and this module is the
one place where the definition stands.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from cxredge.preprocessing import network_input
from cxredge.radiograph import Radiograph

Level: TypeAlias = Literal["none", "weak", "harsh"]


@dataclass(frozen=True)
class Shift:
    """Strength of a shift.

    Attributes:
        spread: contrast and intensity are scaled by factors from ``1 ± spread``.
        noise: standard deviation of the added noise on the [-1, 1] scale.
    """

    spread: float
    noise: float


SHIFTS: dict[Level, Shift] = {"none": Shift(0.0, 0.0), "weak": Shift(0.3, 0.5), "harsh": Shift(0.6, 1.0)}


def shifted(radiograph: Radiograph, level: Level, name: str, size: int) -> Radiograph:
    """Shift a radiograph.

    With u the min-max image in [0, 1] at network size and ū its mean,
    ``v = ((u − ū)·c + ū)·b`` with c, b uniform in ``1 ± spread``, then ``clip(2v − 1, −1, 1) + N(0, σ)``.
    The result is an image like any other and goes through the ordinary preprocessing.

    Args:
        radiograph: the radiograph; returned as it is for ``none``.
        level: which of :data:`SHIFTS`.
        name: of the image; with the level it seeds the draw.
        size: side of the network's input in pixels.

    Returns:
        A radiograph of ``(size, size)`` float64 pixels.
    """
    if level == "none":
        return radiograph
    shift = SHIFTS[level]
    seed = hashlib.sha256(f"{level}/{name}".encode()).digest()[:8]
    generator = np.random.default_rng(int.from_bytes(seed, "little"))
    u = network_input(radiograph, size).astype(np.float64) / 2 + 0.5
    contrast, intensity = generator.uniform(1 - shift.spread, 1 + shift.spread, 2)
    v = ((u - u.mean()) * contrast + u.mean()) * intensity
    return Radiograph(np.clip(2 * v - 1, -1, 1) + generator.normal(0, shift.noise, u.shape))
