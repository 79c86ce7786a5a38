"""A 3x3 convolution with a change of resolution beside it, as one convolution that costs four ninths.

Exact in real arithmetic, zero borders included, so the networks compute them this way in training, and
the export folds them for good.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

POOLED_TAPS = torch.tensor([[1, 0, 0], [1, 1, 0], [0, 1, 1], [0, 0, 1]], dtype=torch.float64) / 2
"""Taps of a 3-tap conv followed by averaging pairs, as a 4-tap conv of stride 2, along one axis."""
ENLARGED_TAPS = torch.tensor([[0, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 0]], dtype=torch.float64)
"""Taps of a 3-tap conv on doubled samples, as a 4-tap transposed conv of stride 2, along one axis."""


def spread(weight: Tensor, taps: Tensor) -> Tensor:
    """A kernel ``(O, I, 3, 3)`` spread to ``(O, I, 4, 4)`` by ``taps`` ``(4, 3)`` along both axes; rounded once."""
    taps = taps.to(weight.device)
    return torch.einsum("ya,xb,oiab->oiyx", taps, taps, weight.double()).to(weight.dtype)


def gathered(weight: Tensor, taps: Tensor) -> Tensor:
    """The kernel ``(O, I, 3, 3)`` that :func:`spread` with ``taps`` makes ``weight`` ``(O, I, 4, 4)`` of."""
    inverse = torch.linalg.pinv(taps).to(weight.device)
    return torch.einsum("ay,bx,oiyx->oiab", inverse, inverse, weight.double()).to(weight.dtype)


def conv_then_pool(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """``avg_pool2d(conv(x), 2)`` of a 3x3 conv with padding 1, for ``x`` of even sides."""
    return F.conv2d(x, spread(conv.weight, POOLED_TAPS), conv.bias, stride=2, padding=1)


def enlarge_then_conv(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """A 3x3 ``conv`` with padding 1 of ``x`` enlarged twofold by copying pixels."""
    kernel = spread(conv.weight, ENLARGED_TAPS).transpose(0, 1)
    return F.conv_transpose2d(x, kernel, conv.bias, stride=2, padding=1)
