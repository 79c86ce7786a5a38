"""The losses of the paper, one function a term. Codes are ``(N, 16)``, images ``(N, 1, H, W)`` in [-1, 1]."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


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
    """ℓ_style (eq. 4): ``‖a'_seg − S(G(x, a_seg))‖₁``, the mean over the code."""
    return F.l1_loss(generated_code.float(), dummy_code.float())


def adversarial(logits: Tensor, real: bool) -> Tensor:
    """ℓ_adv: binary cross-entropy of D's logits ``(N, 1)`` against "real" or "generated".

    D is trained with both; G with ``real=True`` on what it generated, the non-saturating form.
    """
    return F.binary_cross_entropy_with_logits(logits.float(), torch.full_like(logits, float(real), dtype=torch.float32))


def r1_penalty(real_logits: Tensor, real_images: Tensor) -> Tensor:
    """R1: ``0.5 · ‖∇D(x)‖²`` on real images, the mean over the batch (Mescheder et al. 2018)."""
    (gradient,) = torch.autograd.grad(real_logits.sum(), real_images, create_graph=True)
    return 0.5 * gradient.float().square().sum(dim=(1, 2, 3)).mean()


def style_reconstruction(code: Tensor, recovered_code: Tensor) -> Tensor:
    """ℓ_sty: ``‖a_da − S(G(u, a_da))‖₁``."""
    return F.l1_loss(recovered_code.float(), code.float())


def cycle_consistency(images: Tensor, returned: Tensor) -> Tensor:
    """ℓ_cyc: ``‖u − G(G(u, a_da), S(u))‖₁``."""
    return F.l1_loss(returned.float(), images.float())


def diversity(images: Tensor, other_images: Tensor) -> Tensor:
    """ℓ_ds: ``‖G(u, a_da) − G(u, a'_da)‖₁`` of two codes, to be made large; the second takes no gradient."""
    return F.l1_loss(images.float(), other_images.detach().float())


def inter_consistency(teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
    """ℓ_inter (eq. 7): ``‖G(G(y, a_da^X), a_seg) − G(y, a_self)‖₁``; the teacher takes no gradient."""
    return F.l1_loss(student_logits.float(), teacher_logits.detach().float())


def intra_consistency(teacher_logits: Tensor, student_logits: Tensor) -> Tensor:
    """ℓ_intra (eq. 8): ``‖G(x, a_self) − G(x, a_seg)‖₁``; the teacher takes no gradient."""
    return F.l1_loss(student_logits.float(), teacher_logits.detach().float())


def one_hot(masks: Tensor) -> Tensor:
    """Masks ``(N, H, W)`` bool as S and D see them: ``(N, 2, H, W)`` float32, background and lung."""
    lung = masks.float()
    return torch.stack([1 - lung, lung], dim=1)
