"""Views of an image whose logits are averaged: a better teacher from the same network.

Data distillation (Radosavovic et al. 2018, "Data Distillation: Towards Omni-Supervised Learning"): what a
network says of a turned or scaled image, turned back, is another opinion of the same pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from math import cos, radians, sin

import torch
from torch import Tensor
from torch.nn import functional as F

VIEWS = ((0.0, 1.0), (4.0, 1.0), (-4.0, 1.0), (0.0, 1.06), (0.0, 0.95))
"""Degrees clockwise and the factor by which an image is turned and enlarged; the first is the image itself."""


def mean_over_views(network: Callable[[Tensor], Tensor], images: Tensor, count: int) -> Tensor:
    """The mean of a network's outputs over the first ``count`` of :data:`VIEWS`.

    Args:
        network: gives ``(N, C, H, W)`` for images ``(N, 1, H, W)``.
        images: square, ``H == W``.
        count: 1 for the image alone.
    """
    outputs = [network(images)]
    for degrees, scale in VIEWS[1:count]:
        turned = network(turn(images, degrees, scale))
        outputs.append(turn(turned, -degrees, 1 / scale))
    return torch.stack(outputs).mean(dim=0)


def turn(images: Tensor, degrees: float, scale: float) -> Tensor:
    """Square images ``(N, C, H, H)`` turned clockwise and enlarged about their centre; the border is repeated."""
    angle = radians(degrees)
    c, s = cos(angle) / scale, sin(angle) / scale
    matrix = images.new_tensor([[c, s, 0], [-s, c, 0]], dtype=torch.float32).expand(len(images), 2, 3)
    with torch.autocast(images.device.type, enabled=False):  # coordinates in BF16 would be half a pixel off
        grid = F.affine_grid(matrix, list(images.shape), align_corners=False)
        return F.grid_sample(images.float(), grid, padding_mode="border", align_corners=False).to(images)
