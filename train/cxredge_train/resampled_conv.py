"""A 3x3 convolution with a change of resolution beside it, as one convolution that costs four ninths.

Exact in real arithmetic, zero borders included. The networks compute it so; the export's folds ``pool-conv`` and
``up-conv`` make one kernel of it for good.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


def pooled_kernel(kernel: Tensor) -> Tensor:
    """The kernel ``(O, I, 4, 4)`` of stride 2 of a 3x3 conv ``(O, I, 3, 3)`` followed by a 2x2 average pool."""
    return F.avg_pool2d(F.pad(kernel, (1, 1, 1, 1)), 2, stride=1)


def enlarged_kernel(kernel: Tensor) -> Tensor:
    """The kernel ``(I, O, 4, 4)`` of the transposed conv of stride 2 that is a 3x3 conv of pixels copied twofold."""
    return 4 * pooled_kernel(kernel).flip(2, 3).transpose(0, 1)


def conv_then_pool(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """``avg_pool2d(conv(x), 2)`` of a 3x3 conv with padding 1, for ``x`` of even sides."""
    return F.conv2d(x, pooled_kernel(conv.weight), conv.bias, stride=2, padding=1)


def enlarge_then_conv(x: Tensor, conv: nn.Conv2d) -> Tensor:
    """A 3x3 ``conv`` with padding 1 of ``x`` enlarged twofold by copying pixels."""
    return F.conv_transpose2d(x, enlarged_kernel(conv.weight), conv.bias, stride=2, padding=1)
