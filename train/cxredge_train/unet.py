"""The U-Net of the paper's comparison (Ronneberger et al. 2015), trained by supervised segmentation alone."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cxredge_train.networks import Codes, Domain, NetworkConfig

LEVELS = 4
"""Times that the resolution is halved; inputs are multiples of 16, as G's are."""


class ConvPair(nn.Sequential):
    """Two 3x3 convs, each with batch norm and ReLU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(
            nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels_out, channels_out, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels_out),
            nn.ReLU(inplace=True),
        )


class UNet(nn.Module):
    """U-Net with skips, batch norm and learned up-sampling, of the widths w, 2w, 4w, 8w and 16w.

    It has G's signature, so that trainer, validation and evaluation treat both alike, but one task only.
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        channels = [config.width * 2**level for level in range(LEVELS + 1)]
        self.stem = ConvPair(1, channels[0])
        self.down = nn.ModuleList(ConvPair(i, o) for i, o in pairwise(channels))
        upwards = list(pairwise(reversed(channels)))
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(i, o, 2, stride=2) for i, o in upwards)
        self.up = nn.ModuleList(ConvPair(2 * o, o) for _, o in upwards)
        self.head = nn.Conv2d(channels[0], 2, 1)

    def forward(self, u: Tensor, codes: Codes) -> Tensor:
        """Mask logits ``(N, 2, H, W)`` (background, lung) of images ``(N, 1, H, W)``, H and W multiples of 16.

        Raises:
            ValueError: ``codes`` is not a_seg: this network has no AdaIN.
        """
        if codes.encoder is not None or codes.decoder is not None or codes.target is not Domain.MASK:
            raise ValueError("a U-Net takes the code a_seg only")
        x = self.stem(u)
        skips = []
        for block in self.down:
            skips.append(x)
            x = block(F.max_pool2d(x, 2))
        for enlarge, block in zip(self.enlarge, self.up, strict=True):
            x = block(torch.cat([skips.pop(), enlarge(x)], dim=1))
        logits: Tensor = self.head(x)
        return logits
