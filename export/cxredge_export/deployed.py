"""The deployed network: the direct path at one fixed code, as sequences of plain layers.

The folds rewrite it: each replaces neighbouring layers of a sequence by others that compute the same.
As made here, it has the generator's layers, each by itself, as the method draws them.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

from cxredge_train.networks import LEAKY_SLOPE, DecoderBlock, EncoderBlock, Generator, SwitchedNorm, residual_sum


class DeployedBlock(nn.Module):
    """Residual block whose branches are sequences of layers; a ``shortcut`` of none is the identity."""

    def __init__(self, residual: nn.Sequential, shortcut: nn.Sequential) -> None:
        super().__init__()
        self.residual = residual
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        return residual_sum(self.shortcut(x), self.residual(x))


class Difference(nn.Module):
    """Lung minus background: one logit ``(N, 1, H, W)`` from two ``(N, 2, H, W)``."""

    def forward(self, logits: Tensor) -> Tensor:
        return logits[:, 1:] - logits[:, :1]


class Interleave(nn.Module):
    """Four phases become one picture of twice their size: ``(N, 4 C, H + 1, W + 1)`` to ``(N, C, 2 H, 2 W)``.

    The same as ``pixel_shuffle(x, 2)[..., 1:-1, 1:-1]``, whose single step through memory (DepthToSpace)
    takes ONNX Runtime three times as long as columns and rows after one another.
    """

    def forward(self, x: Tensor) -> Tensor:
        channels, height, width = x.shape[1] // 4, x.shape[2], x.shape[3]
        columns = x.reshape(-1, 2, height, width).permute(0, 2, 3, 1)
        rows = columns.reshape(-1, 2, height, 2 * width).permute(0, 2, 1, 3)
        return rows.reshape(-1, channels, 2 * height, 2 * width)[:, :, 1:-1, 1:-1]


class DeployedNetwork(nn.Module):
    """The direct path as deployed: radiograph in, one lung logit a pixel out (method, section 5)."""

    def __init__(self, stem: nn.Conv2d, encoder: nn.Sequential, decoder: nn.Sequential, head: nn.Sequential) -> None:
        super().__init__()
        self.stem = stem
        self.encoder = encoder
        self.decoder = decoder
        self.head = head

    @property
    def blocks(self) -> list[DeployedBlock]:
        """All residual blocks, from the input to the output."""
        return [block for block in (*self.encoder, *self.decoder) if isinstance(block, DeployedBlock)]

    def forward(self, image: Tensor) -> Tensor:
        """Lung logit ``(N, 1, S, S)``, lung minus background, for images ``(N, 1, S, S)`` in [-1, 1]."""
        logit: Tensor = self.head(self.decoder(self.encoder(self.stem(image))))
        return logit


def deploy(generator: Generator, encoder_norm: Callable[[SwitchedNorm], nn.InstanceNorm2d]) -> DeployedNetwork:
    """The path from image to mask of ``generator``, with which it shares its layers.

    Args:
        generator: left as it is.
        encoder_norm: gives the constant norm that takes the place of one in the encoder; the
            decoder's are those of "(0, 1)", as in a_seg and a_self.
    """
    encoder = [deploy_down(b, encoder_norm) for b in generator.encoder if isinstance(b, EncoderBlock)]
    decoder = [deploy_up(b) for b in generator.decoder if isinstance(b, DecoderBlock)]
    norm, activation, conv = generator.mask_head
    head = {"norm": norm, "activation": activation, "conv": conv, "difference": Difference()}
    return DeployedNetwork(generator.image_stem, nn.Sequential(*encoder), nn.Sequential(*decoder), sequence(head))


def deploy_down(block: EncoderBlock, norm: Callable[[SwitchedNorm], nn.InstanceNorm2d]) -> DeployedBlock:
    """A block of the encoder: pooled after its first conv and after its shortcut's conv, where it is."""
    pool: dict[str, nn.Module] = {"pool": nn.AvgPool2d(2)} if block.down else {}
    residual = {
        "norm1": norm(block.norm1),
        "activation1": nn.LeakyReLU(LEAKY_SLOPE),
        "conv1": block.conv1,
        **pool,
        "norm2": norm(block.norm2),
        "activation2": nn.LeakyReLU(LEAKY_SLOPE),
        "conv2": block.conv2,
    }
    conv: dict[str, nn.Module] = {} if block.shortcut is None else {"conv": block.shortcut}
    return DeployedBlock(sequence(residual), sequence({**conv, **pool}))


def deploy_up(block: DecoderBlock) -> DeployedBlock:
    """A block of the decoder: enlarged before its first conv and before its shortcut's conv, where it is."""
    enlarge: dict[str, nn.Module] = {"enlarge": nn.Upsample(scale_factor=2.0, mode="nearest")} if block.up else {}
    residual = {
        "norm1": block.norm1.plain,
        "activation1": nn.LeakyReLU(LEAKY_SLOPE),
        **enlarge,
        "conv1": block.conv1,
        "norm2": block.norm2.plain,
        "activation2": nn.LeakyReLU(LEAKY_SLOPE),
        "conv2": block.conv2,
    }
    conv: dict[str, nn.Module] = {} if block.shortcut is None else {"conv": block.shortcut}
    return DeployedBlock(sequence(residual), sequence({**enlarge, **conv}))


def sequence(layers: dict[str, nn.Module]) -> nn.Sequential:
    """``layers`` one after another, under their names, which the weights in the file carry too."""
    steps = nn.Sequential()
    for name, layer in layers.items():
        steps.add_module(name, layer)
    return steps
