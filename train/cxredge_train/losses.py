"""The losses of the paper, one function a term."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from cxredge_train.config import LossConfig
from cxredge_train.framework import Framework
from cxredge_train.networks import Domain, a_seg


def segmentation(logits: Tensor, masks: Tensor, class_weights: tuple[float, float]) -> Tensor:
    """ℓ_seg (eq. 2): weighted cross-entropy of ``G(x, a_seg)`` against the true masks.

    Args:
        logits: ``(N, 2, H, W)``, background and lung.
        masks: ``(N, H, W)`` bool.
        class_weights: weights of background and lung.
    """
    weight = logits.new_tensor(class_weights, dtype=torch.float32)
    return F.cross_entropy(logits.float(), masks.long(), weight)


def segmentation_style(dummy_code: Tensor, generated_code: Tensor) -> Tensor:
    """ℓ_style (eq. 4): ``‖a'_seg − S(G(x, a_seg))‖₁``, the mean over both dimensions of ``(N, 16)`` codes."""
    return F.l1_loss(generated_code.float(), dummy_code.float())


def one_hot(masks: Tensor) -> Tensor:
    """Masks ``(N, H, W)`` bool as S and D see them: ``(N, 2, H, W)`` float32, background and lung."""
    lung = masks.float()
    return torch.stack([1 - lung, lung], dim=1)


def supervised_losses(
    framework: Framework, images: Tensor, masks: Tensor, latents: Tensor | None, config: LossConfig
) -> dict[str, Tensor]:
    """Terms of the supervised task (eqs. 2-4), unweighted.

    Args:
        framework: the networks.
        images: INTRA radiographs ``(N, 1, H, W)`` in [-1, 1].
        masks: their lung masks ``(N, H, W)`` bool.
        latents: z ``(N, 4)`` for the dummy code ``F_d(z)``, or ``None`` for ``S(mask)``.
        config: weights; the style term is left out where its weight is 0.
    """
    logits = framework.generator(images, a_seg())
    losses = {"seg": segmentation(logits, masks, config.class_weights)}
    if config.lambda_style > 0:
        style_encoder = framework.style_encoder
        dummy = (
            style_encoder(one_hot(masks), Domain.MASK)
            if latents is None
            else framework.code_generators.f_d(latents, Domain.MASK)
        )
        losses["style"] = segmentation_style(dummy, style_encoder(logits.softmax(dim=1), Domain.MASK))
    return losses


def supervised_total(losses: dict[str, Tensor], config: LossConfig) -> Tensor:
    """``λ_seg · ℓ_seg + λ_style · ℓ_style`` (eq. 2)."""
    total = config.lambda_seg * losses["seg"]
    return total + config.lambda_style * losses["style"] if "style" in losses else total
