"""What a_self is in a checkpoint: the size of γ and β in each encoder AdaIN layer, and how far they are from a_seg."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from cxredge_train.networks import Generator, SwitchedNorm


@dataclass(frozen=True)
class LayerCode:
    """a_self in one encoder AdaIN layer. Norms are divided by the square root of the channels (RMS).

    Attributes:
        layer: name of the norm in the generator.
        channels: its channels C.
        gamma: ``‖γ‖ / √C`` of a_self (eq. 1).
        beta: ``‖β‖ / √C`` of a_self.
        gamma_from_seg: ``‖γ − γ_seg‖ / √C``, where ``1 + γ_seg`` is the scale of the "(0, 1)" path.
        beta_from_seg: ``‖β − β_seg‖ / √C``.
    """

    layer: str
    channels: int
    gamma: float
    beta: float
    gamma_from_seg: float
    beta_from_seg: float

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


@torch.no_grad()
def layer_codes(generator: Generator, self_code: Tensor) -> Iterator[LayerCode]:
    """a_self in every encoder AdaIN layer, in order.

    Args:
        generator: averaged generator of a checkpoint.
        self_code: a_self's encoder code ``(16,)``.
    """
    for name, norm in generator.encoder.named_modules():
        if isinstance(norm, SwitchedNorm):
            scale, shift = norm.adaptive.affine(self_code[None])
            gamma, beta = scale[0] - 1, shift[0]
            seg_gamma = norm.plain.weight - 1 if norm.plain.affine else torch.zeros_like(gamma)
            seg_beta = norm.plain.bias if norm.plain.affine else torch.zeros_like(beta)
            sizes = (root_mean_square(t) for t in (gamma, beta, gamma - seg_gamma, beta - seg_beta))
            yield LayerCode(f"encoder.{name}", len(gamma), *sizes)


def root_mean_square(vector: Tensor) -> float:
    """``‖vector‖ / √C`` of a vector ``(C,)``."""
    return float(vector.norm()) / math.sqrt(len(vector))
