"""Random geometry and photometry for training radiographs, mostly Kornia's.

Geometry moves image and mask together. Afterwards every image is min-max normalised again, as a
stored radiograph would be.
"""

from __future__ import annotations

import kornia.augmentation as K
import torch
from torch import Tensor, nn

from cxredge_train.config import AugmentationConfig


class Augmentation(nn.Module):
    """The augmentations of one configuration, drawn from torch's global generator."""

    def __init__(self, config: AugmentationConfig) -> None:
        super().__init__()
        self.config = config
        low, high = config.scale
        self.geometry = K.AugmentationSequential(
            K.RandomHorizontalFlip(p=config.flip),
            K.RandomAffine(
                config.rotation,
                (config.translation, config.translation),
                (low, high, low, high),
                (-config.shear, config.shear, -config.shear, config.shear),
                p=0.9,
            ),
            data_keys=["input", "mask"],
        )
        self.photometry = nn.Sequential(
            K.RandomPlasmaContrast((0.2, 0.6), p=config.opacity),
            K.RandomPlasmaBrightness((0.2, 0.6), (0.0, 0.4), p=config.opacity),
            K.RandomLinearIllumination((0.05, 0.35), p=config.illumination),
            K.RandomGaussianIllumination((0.05, 0.35), p=config.illumination),
            K.RandomGamma(config.gamma, p=0.7),
            K.RandomClahe(p=config.equalisation),
            K.RandomGaussianBlur((7, 7), (0.3, 2.0), p=config.blur),
        )

    @torch.no_grad()
    def forward(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Augment a batch.

        Args:
            images: ``(N, 1, H, W)`` in [-1, 1].
            masks: ``(N, H, W)`` bool.

        Returns:
            Images in [-1, 1], the same images after geometry alone, and masks, of the same shapes.
        """
        moved_images, moved = self.geometry(images / 2 + 0.5, masks[:, None].float())
        images = self.photometry(moved_images.clamp(0, 1))
        images = add_noise(images, self.config.noise)
        images = add_occlusion(images, self.config.occlusion)
        images = add_collimation(images, self.config.occlusion)
        return min_max(images), min_max(moved_images), moved[:, 0] > 0.5


def add_noise(images: Tensor, largest: float) -> Tensor:
    """Add Gaussian noise whose standard deviation and grain size differ from image to image.

    The deviation is drawn from [0, ``largest``] with small values more likely; half the images get
    noise of double the grain, as an enlarged or binned detector gives.
    """
    count = len(images)
    deviation = largest * torch.rand(count, 1, 1, 1) ** 2
    fine = torch.randn(images.shape)
    coarse = nn.functional.interpolate(torch.randn(count, 1, *(s // 2 for s in images.shape[2:])), images.shape[2:])
    noise = torch.where(torch.rand(count, 1, 1, 1) < 0.5, fine, coarse)
    return images + (deviation * noise).to(images)


def add_occlusion(images: Tensor, probability: float) -> Tensor:
    """Cover a rectangle of some images, up to 40 % of each side, with one grey value (a marker, a device)."""
    count, _, height, width = images.shape
    centre, half = torch.rand(count, 2, 1, 1), 0.2 * torch.rand(count, 2, 1, 1)
    y = torch.linspace(0, 1, height)[None, :, None]
    x = torch.linspace(0, 1, width)[None, None, :]
    inside = ((y - centre[:, 0]).abs() < half[:, 0]) & ((x - centre[:, 1]).abs() < half[:, 1])
    inside &= torch.rand(count, 1, 1) < probability
    return torch.where(inside[:, None].to(images.device), torch.rand(count, 1, 1, 1).to(images), images)


def add_collimation(images: Tensor, probability: float) -> Tensor:
    """Blacken or whiten a band of up to 12 % along one or more borders of some images."""
    count, _, height, width = images.shape
    bands = (torch.rand(count, 4) * 0.12) * (torch.rand(count, 4) < 0.5)
    bands *= (torch.rand(count, 1) < probability).float()
    value = (torch.rand(count, 1, 1, 1) < 0.25).float()
    y = torch.linspace(0, 1, height)[None, :, None]
    x = torch.linspace(0, 1, width)[None, None, :]
    top, bottom, left, right = (band[:, None, None] for band in bands.unbind(1))
    outside = (y < top) | (y > 1 - bottom) | (x < left) | (x > 1 - right)
    return torch.where(outside[:, None].to(images.device), value.to(images), images)


def min_max(images: Tensor) -> Tensor:
    """Each image of ``(N, 1, H, W)`` stretched to [-1, 1]; a constant image becomes -1."""
    low = images.amin(dim=(1, 2, 3), keepdim=True)
    high = images.amax(dim=(1, 2, 3), keepdim=True)
    return 2 * (images - low) / (high - low).clamp_min(1e-6) - 1
