"""Folding: a trained generator and one fixed code become a plain network, and that a cheaper one.

Every fold is exact: in real arithmetic the network's output does not change, at its borders either.
:data:`FOLDS` lists them by name; each stands by itself, and any subset of them, in any order, is valid.
``adain`` comes first and is always applied: it is what makes the network plain.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import TypeAlias

import torch
from torch import Tensor, nn

from cxredge.phases import TAPS
from cxredge_export.deployed import DeployedNetwork, Difference, Interleave, deploy, sequence
from cxredge_train.networks import Generator, SwitchedNorm
from cxredge_train.resampled_conv import enlarged_kernel, pooled_kernel

ADAIN = "adain"

Layers: TypeAlias = dict[str, nn.Module]


def fold_code(generator: Generator, encoder_code: Tensor | None) -> DeployedNetwork:
    """The fold ``adain``: a fixed encoder code becomes part of the network.

    Every encoder AdaIN becomes an instance norm with the constant affine ``(1 + γ, β)`` of the code
    (eq. 1); what the path does not use is left out.

    Args:
        generator: left as it is; the result shares its layers.
        encoder_code: a_self's code ``(16,)``, or ``None`` for a_seg, whose "(0, 1)" path is kept.

    Returns:
        Lung minus background logit of ``G(u, a_seg)``, or of ``G(u, (encoder_code, (0, 1)))``.
    """
    if encoder_code is None:
        return deploy(generator, lambda norm: norm.plain)
    return deploy(generator, lambda norm: constant_norm(norm, encoder_code))


@torch.no_grad()
def constant_norm(norm: SwitchedNorm, code: Tensor) -> nn.InstanceNorm2d:
    """The AdaIN of ``norm`` at ``code`` ``(16,)`` as an instance norm with constant affine."""
    scale, shift = norm.adaptive.affine(code[None])
    constant = nn.InstanceNorm2d(scale.shape[1], affine=True, device=scale.device, dtype=scale.dtype)
    constant.weight.copy_(scale[0])
    constant.bias.copy_(shift[0])
    return constant


def drop_norm_biases(network: DeployedNetwork) -> None:
    """Drop every bias that an instance norm takes away: those of all convs but the head's.

    The bias of a block's first conv goes into the block's second norm. The biases of the stem and of a
    block's second conv shift whole channels of what the next block reads: its norm takes the shift away,
    its shortcut, which only averages or copies pixels and mixes channels, hands it on as such a shift,
    and the head's norm takes away the last one.
    """
    for part in (network.stem, network.encoder, network.decoder):
        for layer in part.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                layer.bias = None


def commute_shortcuts(network: DeployedNetwork) -> None:
    """Run the 1x1 conv of a shortcut at the lower resolution: after its pooling, before its enlargement.

    Both take a mean or a copy over space alone, the conv a sum over channels alone, so they commute.
    """
    for block in network.blocks:
        for pair in ((nn.Conv2d, nn.AvgPool2d), (nn.Upsample, nn.Conv2d)):
            block.shortcut = rewritten(block.shortcut, pair, lambda first, second: {**second, **first})


def fold_pooling(network: DeployedNetwork) -> None:
    """A 3x3 conv and the 2x2 average pool after it become one 4x4 conv of stride 2."""
    for block in network.blocks:
        block.residual = rewritten(
            block.residual, (nn.Conv2d, nn.AvgPool2d), lambda conv, _: changed(conv, pooled_conv)
        )


def pooled_conv(conv: nn.Conv2d) -> nn.Module:
    """The conv of :func:`fold_pooling`; the zero padding of 1 stays."""
    folded = nn.Conv2d(conv.in_channels, conv.out_channels, 4, stride=2, padding=1, device="meta")
    return with_weights(folded, rounded_once(pooled_kernel, conv.weight), conv.bias)


def fold_enlargement(network: DeployedNetwork) -> None:
    """Nearest-neighbour enlargement and the 3x3 conv after it become one 4x4 transposed conv of stride 2."""
    for block in network.blocks:
        block.residual = rewritten(
            block.residual, (nn.Upsample, nn.Conv2d), lambda _, conv: changed(conv, enlarged_conv)
        )


def enlarged_conv(conv: nn.Conv2d) -> nn.Module:
    """The transposed conv of :func:`fold_enlargement`."""
    folded = nn.ConvTranspose2d(conv.in_channels, conv.out_channels, 4, stride=2, padding=1, device="meta")
    return with_weights(folded, rounded_once(enlarged_kernel, conv.weight), conv.bias)


def fold_into_phases(network: DeployedNetwork) -> None:
    """What the fold ``up-conv`` makes as one 2x2 conv and an :class:`Interleave`; with or without that fold.

    The transposed conv of stride 2 has four phases, the even and odd rows and columns of its output, each a 2x2
    conv of its input. Those of the odd ones look one sample further, which is where padding and cropping by 1 come
    from. The same products and sums, but ONNX Runtime's convs are faster than its transposed convs.
    """
    fold_enlargement(network)
    for block in network.blocks:
        layers = dict(block.residual.named_children())
        for name, layer in layers.items():
            if isinstance(layer, nn.ConvTranspose2d):
                layers[name] = sequence({"phases": phase_conv(layer), "interleave": Interleave()})
        block.residual = sequence(layers)


def phase_conv(conv: nn.ConvTranspose2d) -> nn.Module:
    """The conv of :func:`fold_into_phases`, ``(N, I, H, W) -> (N, 4 O, H + 1, W + 1)``."""
    folded = nn.Conv2d(conv.in_channels, 4 * conv.out_channels, 2, padding=1, device="meta")
    taps = torch.tensor(TAPS)
    weight = conv.weight[:, :, taps[:, None, :, None], taps[None, :, None, :]]  # (I, O, 2, 2, 2, 2)
    weight = weight.movedim(0, 3).flatten(0, 2)
    return with_weights(folded, weight, None if conv.bias is None else conv.bias.repeat_interleave(4))


def fold_head(network: DeployedNetwork) -> None:
    """The two-class head becomes one logit: w₁ - w₀ and b₁ - b₀."""
    network.head = rewritten(network.head, (nn.Conv2d, Difference), lambda conv, _: changed(conv, difference_conv))


def difference_conv(conv: nn.Conv2d) -> nn.Module:
    """The conv of :func:`fold_head`."""
    assert conv.bias is not None  # of the head's conv, which no fold drops
    folded = nn.Conv2d(conv.in_channels, 1, 1, device="meta")
    return with_weights(folded, conv.weight[1:] - conv.weight[:1], conv.bias[1:] - conv.bias[:1])


Fold: TypeAlias = Callable[[DeployedNetwork], None]
FOLDS: dict[str, Fold] = {
    "norm-bias": drop_norm_biases,
    "shortcut": commute_shortcuts,
    "pool-conv": fold_pooling,
    "up-conv": fold_enlargement,
    "up-phases": fold_into_phases,
    "head": fold_head,
}
"""The folds that can be chosen, in the order in which they are applied; each changes the network in place."""
TRANSPOSED_FOLDS = tuple(name for name in FOLDS if name != "up-phases")
"""All folds as they suit a GPU: transposed convs are not taken apart."""


def fold(network: DeployedNetwork, folds: Iterable[str]) -> DeployedNetwork:
    """A copy of ``network`` with the named folds applied, in the order of :data:`FOLDS`.

    Raises:
        ValueError: a name is not one of :data:`FOLDS`.
    """
    chosen = set(folds)
    unknown = chosen - set(FOLDS)
    if unknown:
        raise ValueError(f"unknown fold {sorted(unknown)[0]!r}; there are {', '.join(FOLDS)}")
    folded = copy.deepcopy(network)
    for name, apply in FOLDS.items():
        if name in chosen:
            apply(folded)
    return folded


def parse_folds(text: str) -> tuple[str, ...]:
    """Names of folds from ``all``, ``none`` or a list with commas, in the order of :data:`FOLDS`.

    ``adain`` may be named and changes nothing: it is always applied.

    Raises:
        ValueError: a name is not one of a fold.
    """
    named = {"all": set(FOLDS), "none": set[str]()}.get(text, {name.strip() for name in text.split(",")})
    unknown = named - {ADAIN, *FOLDS}
    if unknown:
        raise ValueError(f"{sorted(unknown)[0]!r} is no fold; there are all, none, {ADAIN}, {', '.join(FOLDS)}")
    return tuple(name for name in FOLDS if name in named)


def rewritten(
    layers: nn.Sequential, pair: tuple[type, type], become: Callable[[Layers, Layers], Layers]
) -> nn.Sequential:
    """``layers``, with the first neighbours of the types ``pair`` replaced by what they ``become``."""
    named = list(layers.named_children())
    for i, ((name, layer), (next_name, next_layer)) in enumerate(pairwise(named)):
        if isinstance(layer, pair[0]) and isinstance(next_layer, pair[1]):
            replaced = become({name: layer}, {next_name: next_layer})
            return sequence({**dict(named[:i]), **replaced, **dict(named[i + 2 :])})
    return layers


def changed(layers: Layers, change: Callable[[nn.Conv2d], nn.Module]) -> Layers:
    """``layers``, all convs, each changed under its name."""
    return {name: change(layer) for name, layer in layers.items() if isinstance(layer, nn.Conv2d)}


def rounded_once(change: Callable[[Tensor], Tensor], weight: Tensor) -> Tensor:
    """``weight`` changed in double precision."""
    return change(weight.double()).to(weight.dtype)


def with_weights(layer: nn.Conv2d | nn.ConvTranspose2d, weight: Tensor, bias: Tensor | None) -> nn.Module:
    """``layer`` with this weight and bias."""
    layer.weight = nn.Parameter(weight.detach().contiguous())
    layer.bias = None if bias is None else nn.Parameter(bias.detach())
    return layer
