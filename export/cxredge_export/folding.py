"""Folding: a trained generator and one fixed code become a plain network.

Each fold is exact and stands by itself. This is the AdaIN fold; the folds that only make the network
faster join it here.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from cxredge_train.networks import Generator, SwitchedNorm, a_seg


class DirectPath(nn.Module):
    """The direct path as deployed: radiograph in, one lung logit a pixel out (method, section 5).

    Args:
        generator: a generator whose "(0, 1)" path is the wanted one; see :func:`fold_code`.
    """

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, image: Tensor) -> Tensor:
        """Lung logit ``(N, 1, S, S)``, lung minus background, for images ``(N, 1, S, S)`` in [-1, 1]."""
        logits: Tensor = self.generator(image, a_seg())
        return logits[:, 1:] - logits[:, :1]


def fold_code(generator: Generator, encoder_code: Tensor | None) -> Generator:
    """Fold a fixed encoder code into the generator.

    Every encoder AdaIN becomes an instance norm with the constant affine ``(1 + γ, β)`` of the code
    (eq. 1), which takes the place of the "(0, 1)" norm; what the path does not use is dropped.

    Args:
        generator: left as it is.
        encoder_code: a_self's code ``(16,)``, or ``None`` for a_seg, whose "(0, 1)" path is kept.

    Returns:
        A copy whose ``G(u, a_seg)`` equals the given generator's ``G(u, (encoder_code, (0, 1)))``.
    """
    folded = copy.deepcopy(generator)
    for blocks in (folded.encoder, folded.decoder):
        for module in blocks.modules():
            if isinstance(module, SwitchedNorm):
                if encoder_code is not None and blocks is folded.encoder:
                    module.plain = constant_norm(module, encoder_code)
                del module.adaptive
    del folded.image_head, folded.mask_stem
    return folded


def constant_norm(norm: SwitchedNorm, code: Tensor) -> nn.InstanceNorm2d:
    """The AdaIN of ``norm`` at ``code`` ``(16,)`` as an instance norm with constant affine."""
    with torch.no_grad():
        scale, shift = norm.adaptive.affine(code[None])
        constant = nn.InstanceNorm2d(scale.shape[1], affine=True, device=scale.device, dtype=scale.dtype)
        constant.weight.copy_(scale[0])
        constant.bias.copy_(shift[0])
    return constant
