"""The four networks of Oh & Ye (ECCV 2022): generator G, code generators F_e and F_d, style encoder S, discriminator D.

One generator does every task; only the AdaIN code that it is given changes (paper, section 3.1 and
Table 1). :class:`Codes` is that code as one value. The trainer drives all four networks; the export
stage keeps the generator only, with one fixed code folded in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cxredge_train.resampled_conv import conv_then_pool, enlarge_then_conv

CODE_SIZE = 16
"""Length of a style code (method: 16, at every width)."""
LATENT_SIZE = 4
"""Length of the latent z that the code generators take."""
CODE_GENERATOR_UNITS = 512
"""Hidden units of the code generators (method: 512, at every width)."""
LEAKY_SLOPE = 0.2
WIDEST = 512
"""Base channels beyond which a configuration is a mistake: eight times the paper's, 9 GB of weights."""
LARGEST_INPUT = 4096
"""Side of the input in pixels beyond which it is, too; as in the contract."""
STYLE_BLOCKS = 6
STYLE_GRID = 4


class Domain(IntEnum):
    """The paper's three domains; the value is the index of the domain's head in F_d, S and D."""

    INTRA = 0
    INTER = 1
    MASK = 2


@dataclass(frozen=True)
class Codes:
    """The code a = (F_e, F_d) of one task (paper, Table 1).

    Attributes:
        encoder: ``(N, 16)`` style of the encoder's AdaIN layers, or ``None`` for "(0, 1)".
        decoder: ``(N, 16)`` style of the decoder's AdaIN layers, or ``None`` for "(0, 1)".
        target: domain that the task leads to; it picks the output head.
    """

    encoder: Tensor | None
    decoder: Tensor | None
    target: Domain


def a_seg() -> Codes:
    """INTRA to MASK, supervised: (0, 1) everywhere."""
    return Codes(None, None, Domain.MASK)


def a_seg_dummy(decoder: Tensor) -> Codes:
    """INTRA to MASK with the dummy code a'_seg, ``F_d(z)`` or ``S(mask)``, that only the style loss trains."""
    return Codes(None, decoder, Domain.MASK)


def a_da(decoder: Tensor, target: Domain) -> Codes:
    """Domain adaptation to ``target`` (INTRA: a_da^X, INTER: a_da^Y) with a learnable decoder code."""
    return Codes(None, decoder, target)


def a_self(encoder: Tensor) -> Codes:
    """INTER or INTRA to MASK by self-supervised distillation, with a learnable encoder code."""
    return Codes(encoder, None, Domain.MASK)


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the networks.

    Attributes:
        width: base channels; every channel count of G, S and D scales with it (paper: 64).
        input_size: side of the square input in pixels, a multiple of 16 from 32 on (paper: 256).
        encoder_affine: whether the encoder's "(0, 1)" norm has a learned affine, as in the authors' release.
        shared_code_trunk: whether F_e and F_d share one trunk (the release) or are two networks (the paper).
        architecture: ``generator`` is G; ``unet`` the comparison's U-Net in its place, supervised only.
    """

    width: int = 64
    input_size: int = 256
    encoder_affine: bool = True
    shared_code_trunk: bool = False
    architecture: Literal["generator", "unet"] = "generator"

    def __post_init__(self) -> None:
        if not 1 <= self.width <= WIDEST:
            raise ValueError(f"network.width must be at least 1 and at most {WIDEST}, not {self.width}")
        if self.input_size > LARGEST_INPUT:
            raise ValueError(f"network.input_size must be at most {LARGEST_INPUT}, not {self.input_size}")
        if self.input_size < 32 or self.input_size % 16:  # at 16 an instance norm would see a single pixel
            raise ValueError(f"network.input_size must be a multiple of 16, at least 32, not {self.input_size}")


def activate(x: Tensor) -> Tensor:
    """LeakyReLU(0.2), the activation of G, S and D."""
    return F.leaky_relu(x, LEAKY_SLOPE)


def residual_sum(shortcut: Tensor, residual: Tensor) -> Tensor:
    """Sum of both branches of a block, divided by the square root of 2 to keep unit variance."""
    return (shortcut + residual) / math.sqrt(2)


def pool(x: Tensor) -> Tensor:
    """2x2 average pool; a last odd row or column is averaged by itself (in S and D, at small inputs)."""
    odd = x.shape[2] % 2 == 1 or x.shape[3] % 2 == 1
    return F.avg_pool2d(x, 2, ceil_mode=odd)


def unpool(x: Tensor) -> Tensor:
    """Nearest-neighbour up-sampling by 2."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


class AdaptiveInstanceNorm(nn.Module):
    """AdaIN(x, s) = (1 + γ(s)) · IN(x) + β(s), with [γ, β] = Linear(s) (paper, eq. 1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.style = nn.Linear(CODE_SIZE, 2 * channels)

    def affine(self, code: Tensor) -> tuple[Tensor, Tensor]:
        """Scale ``1 + γ`` and shift ``β``, each ``(N, C)``, for codes ``(N, 16)``."""
        gamma, beta = self.style(code).chunk(2, dim=1)
        return 1 + gamma, beta

    def forward(self, x: Tensor, code: Tensor) -> Tensor:
        """Normalise ``x`` ``(N, C, H, W)`` with the style ``code`` ``(N, 16)``."""
        scale, shift = self.affine(code)
        return scale[:, :, None, None] * F.instance_norm(x) + shift[:, :, None, None]


class SwitchedNorm(nn.Module):
    """The norm of a generator block: plain instance norm for "(0, 1)", AdaIN for a learnable code.

    Args:
        channels: channels of the input.
        affine: whether the "(0, 1)" path has a learned affine, shared by all tasks that take it.
    """

    def __init__(self, channels: int, affine: bool) -> None:
        super().__init__()
        self.plain = nn.InstanceNorm2d(channels, affine=affine)
        self.adaptive = AdaptiveInstanceNorm(channels)

    def forward(self, x: Tensor, code: Tensor | None) -> Tensor:
        normalised: Tensor = self.plain(x) if code is None else self.adaptive(x, code)
        return normalised

    def start_from_plain(self) -> None:
        """Make AdaIN equal to the "(0, 1)" path for every code, as a start for training it."""
        linear = self.adaptive.style
        with torch.no_grad():
            linear.weight.zero_()
            linear.bias.zero_()
            if self.plain.affine:
                linear.bias.copy_(torch.cat([self.plain.weight - 1, self.plain.bias]))


class EncoderBlock(nn.Module):
    """Pre-activation residual block of G's encoder; halves the resolution where ``down``."""

    def __init__(self, channels_in: int, channels_out: int, *, down: bool, affine: bool) -> None:
        super().__init__()
        self.down = down
        self.norm1 = SwitchedNorm(channels_in, affine)
        self.norm2 = SwitchedNorm(channels_in, affine)
        self.conv1 = nn.Conv2d(channels_in, channels_in, 3, padding=1)
        self.conv2 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1, bias=False) if channels_in != channels_out else None

    def forward(self, x: Tensor, code: Tensor | None) -> Tensor:
        residual = activate(self.norm1(x, code))
        residual = conv_then_pool(residual, self.conv1) if self.down else self.conv1(residual)
        residual = self.conv2(activate(self.norm2(residual, code)))
        shortcut = pool(x) if self.down else x  # pooling and a 1x1 conv commute
        return residual_sum(shortcut if self.shortcut is None else self.shortcut(shortcut), residual)


class DecoderBlock(nn.Module):
    """Pre-activation residual block of G's decoder; doubles the resolution where ``up``."""

    def __init__(self, channels_in: int, channels_out: int, *, up: bool) -> None:
        super().__init__()
        self.up = up
        self.norm1 = SwitchedNorm(channels_in, affine=False)
        self.norm2 = SwitchedNorm(channels_out, affine=False)
        self.conv1 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.conv2 = nn.Conv2d(channels_out, channels_out, 3, padding=1)
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1, bias=False) if channels_in != channels_out else None

    def forward(self, x: Tensor, code: Tensor | None) -> Tensor:
        residual = activate(self.norm1(x, code))
        residual = enlarge_then_conv(residual, self.conv1) if self.up else self.conv1(residual)
        residual = self.conv2(activate(self.norm2(residual, code)))
        shortcut = x if self.shortcut is None else self.shortcut(x)  # a 1x1 conv and copying pixels commute
        return residual_sum(unpool(shortcut) if self.up else shortcut, residual)


class Head(nn.Sequential):
    """Output head of G: affine instance norm, activation, 1x1 conv."""

    def __init__(self, channels: int, outputs: int) -> None:
        super().__init__(
            nn.InstanceNorm2d(channels, affine=True), nn.LeakyReLU(LEAKY_SLOPE), nn.Conv2d(channels, outputs, 1)
        )


class Generator(nn.Module):
    """The one generator ``v = G(u, a)`` (paper, section 3.1); 33,604,163 parameters at width 64.

    No U-Net skips and no tanh. An image has one channel in [-1, 1]; a mask has two channels, one-hot
    on the way in and logits on the way out (background, lung).
    """

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        w = config.width
        down = [(w, 2 * w), (2 * w, 4 * w), (4 * w, 8 * w), (8 * w, 8 * w)]
        affine = config.encoder_affine
        self.image_stem = nn.Conv2d(1, w, 3, padding=1)
        self.mask_stem = nn.Conv2d(2, w, 3, padding=1)
        self.encoder = nn.ModuleList(
            [EncoderBlock(i, o, down=True, affine=affine) for i, o in down]
            + [EncoderBlock(8 * w, 8 * w, down=False, affine=affine) for _ in range(2)]
        )
        self.decoder = nn.ModuleList(
            [DecoderBlock(8 * w, 8 * w, up=False) for _ in range(2)]
            + [DecoderBlock(o, i, up=True) for i, o in reversed(down)]
        )
        self.image_head = Head(w, 1)
        self.mask_head = Head(w, 2)

    def forward(self, u: Tensor, codes: Codes) -> Tensor:
        """Translate ``u`` by the task that ``codes`` stands for.

        Args:
            u: image ``(N, 1, H, W)`` in [-1, 1] or mask ``(N, 2, H, W)``, H and W multiples of 16.
            codes: the task's code.

        Returns:
            Image ``(N, 1, H, W)``, or mask logits ``(N, 2, H, W)`` where the target is MASK.
        """
        x = self.image_stem(u) if u.shape[1] == 1 else self.mask_stem(u)
        for block in self.encoder:
            x = block(x, codes.encoder)
        for block in self.decoder:
            x = block(x, codes.decoder)
        head = self.mask_head if codes.target is Domain.MASK else self.image_head
        out: Tensor = head(x)
        return out


CodeHead = Literal["inter", "intra", "mask", "self"]
ENCODER_HEADS: tuple[CodeHead, ...] = ("self",)
DECODER_HEADS: tuple[CodeHead, ...] = ("inter", "intra", "mask")


def fully_connected(units_in: int, layers: int) -> list[nn.Module]:
    """``layers`` linear layers of 512 units, each followed by ReLU."""
    modules: list[nn.Module] = []
    for _ in range(layers):
        modules += [nn.Linear(units_in, CODE_GENERATOR_UNITS), nn.ReLU()]
        units_in = CODE_GENERATOR_UNITS
    return modules


class CodeGenerator(nn.Module):
    """AdaIN code generator: a shared trunk on the latent z, then one unshared head per domain.

    With the four heads of F_e and F_d on one trunk it has 3,975,232 parameters.
    """

    def __init__(self, heads: tuple[CodeHead, ...]) -> None:
        super().__init__()
        self.trunk = nn.Sequential(*fully_connected(LATENT_SIZE, 4))
        self.heads = nn.ModuleDict(
            {
                name: nn.Sequential(
                    *fully_connected(CODE_GENERATOR_UNITS, 3), nn.Linear(CODE_GENERATOR_UNITS, CODE_SIZE)
                )
                for name in heads
            }
        )

    def forward(self, z: Tensor, head: CodeHead) -> Tensor:
        """Code ``(N, 16)`` of ``head`` for latents ``z`` ``(N, 4)``."""
        code: Tensor = self.heads[head](self.trunk(z))
        return code


class CodeGenerators(nn.Module):
    """F_e and F_d as one module: two networks (the paper), or one with a shared trunk (the release)."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__()
        if config.shared_code_trunk:
            self.shared = CodeGenerator(ENCODER_HEADS + DECODER_HEADS)
        else:
            self.encoder = CodeGenerator(ENCODER_HEADS)
            self.decoder = CodeGenerator(DECODER_HEADS)
        self.is_shared = config.shared_code_trunk

    def f_e(self, z: Tensor) -> Tensor:
        """F_e(z), the encoder code ``(N, 16)`` of a_self."""
        generator = self.shared if self.is_shared else self.encoder
        code: Tensor = generator(z, "self")
        return code

    def f_d(self, z: Tensor, target: Domain) -> Tensor:
        """F_d(z), the decoder code ``(N, 16)`` that leads to ``target``."""
        generator = self.shared if self.is_shared else self.decoder
        heads: dict[Domain, CodeHead] = {Domain.INTRA: "intra", Domain.INTER: "inter", Domain.MASK: "mask"}
        code: Tensor = generator(z, heads[target])
        return code


class StyleBlock(nn.Module):
    """Norm-free down-sampling residual block of S and D."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels_in, 3, padding=1)
        self.conv2 = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.shortcut = nn.Conv2d(channels_in, channels_out, 1, bias=False) if channels_in != channels_out else None

    def forward(self, x: Tensor) -> Tensor:
        residual = activate(x)
        even = x.shape[2] % 2 == 0 and x.shape[3] % 2 == 0
        residual = conv_then_pool(residual, self.conv1) if even else pool(self.conv1(residual))
        shortcut = pool(x) if self.shortcut is None else self.shortcut(pool(x))
        return residual_sum(shortcut, self.conv2(activate(residual)))


class DomainHeads(nn.Module):
    """Trunk shared by S and D: a stem per kind of input, six down-sampling blocks, one linear head per domain.

    At 256x256 the blocks end on a 4x4 grid; other input sizes are brought to that grid by adaptive
    pooling, so the weights fit every size.
    """

    def __init__(self, config: NetworkConfig, outputs: int) -> None:
        super().__init__()
        w = config.width
        channels = [min(w * 2**i, 8 * w) for i in range(STYLE_BLOCKS + 1)]
        self.image_stem = nn.Conv2d(1, w, 3, padding=1)
        self.mask_stem = nn.Conv2d(2, w, 3, padding=1)
        self.blocks = nn.Sequential(*(StyleBlock(i, o) for i, o in pairwise(channels)))
        self.conv = nn.Conv2d(8 * w, 8 * w, STYLE_GRID)
        self.heads = nn.ModuleList(nn.Linear(8 * w, outputs) for _ in Domain)

    def forward(self, u: Tensor, domain: Domain) -> Tensor:
        """Head of ``domain``, ``(N, outputs)``, for an image ``(N, 1, H, W)`` or a mask ``(N, 2, H, W)``."""
        x = self.blocks(self.image_stem(u) if u.shape[1] == 1 else self.mask_stem(u))
        x = self.conv(F.adaptive_avg_pool2d(activate(x), STYLE_GRID))
        out: Tensor = self.heads[domain](activate(x).flatten(1))
        return out


class StyleEncoder(DomainHeads):
    """S: the style code ``(N, 16)`` of an image or mask in its domain; 20,875,952 parameters at width 64."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config, CODE_SIZE)


class Discriminator(DomainHeads):
    """D: one logit ``(N, 1)`` per domain, real against generated; 20,852,867 parameters at width 64."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config, 1)


def initialise(module: nn.Module) -> None:
    """He-normal weights and zero biases for every conv and linear layer of ``module``."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
