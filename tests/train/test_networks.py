"""The networks are the paper's: their sizes, their parts, and what a code changes in the one generator."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cxredge_export.folding import fold_code
from cxredge_train.networks import (
    AdaptiveInstanceNorm,
    CodeGenerators,
    Codes,
    DecoderBlock,
    Discriminator,
    Domain,
    EncoderBlock,
    Generator,
    NetworkConfig,
    StyleBlock,
    StyleEncoder,
    SwitchedNorm,
    a_da,
    a_seg,
    a_seg_dummy,
    a_self,
    initialise,
    pool,
    residual_sum,
    unpool,
)

SIZES = [(32, 32), (48, 48), (80, 80), (128, 128), (48, 96)]
TINY = NetworkConfig(width=2, input_size=32)


@pytest.fixture
def generator() -> Generator:
    """A generator of width 2 whose norms have an effect of their own (fresh ones are all alike)."""
    torch.manual_seed(0)
    generator = Generator(TINY)
    initialise(generator)
    for name, parameter in generator.named_parameters():
        if "plain" in name or name.startswith(("image_head.0", "mask_head.0")):
            nn.init.normal_(parameter, 1.0, 0.3)
    return generator.eval()


def image(seed: int = 1, count: int = 2, size: tuple[int, int] = (32, 32)) -> Tensor:
    return torch.rand(count, 1, *size, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def one_hot_mask(seed: int = 1, count: int = 2, size: tuple[int, int] = (32, 32)) -> Tensor:
    lung = (image(seed, count, size) > 0).float()
    return torch.cat([1 - lung, lung], dim=1)


def code(seed: int = 1, count: int = 2) -> Tensor:
    return torch.randn(count, 16, generator=torch.Generator().manual_seed(seed))


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def disturbed(generator: Generator, pick: Callable[[str], bool]) -> Generator:
    """A copy with noise on the parameters that ``pick`` names; fails where there are none."""
    other = copy.deepcopy(generator)
    touched = [parameter for name, parameter in other.named_parameters() if pick(name)]
    assert touched
    with torch.no_grad():
        for parameter in touched:
            parameter += torch.randn_like(parameter)
    return other


# Sizes


@pytest.mark.parametrize(
    ("build", "count"),
    [
        (lambda: Generator(NetworkConfig()), 33_604_163),
        (lambda: CodeGenerators(NetworkConfig(shared_code_trunk=True)), 3_975_232),
        (lambda: StyleEncoder(NetworkConfig()), 20_875_952),
        (lambda: Discriminator(NetworkConfig()), 20_852_867),
    ],
    ids=["G", "F", "S", "D"],
)
def test_paper_size_networks_have_the_papers_parameter_counts(build: Callable[[], nn.Module], count: int) -> None:
    with torch.device("meta"):
        assert parameters(build()) == count


def test_generator_with_folded_encoder_code_has_33_32_million_parameters() -> None:
    with torch.device("meta"):
        folded = fold_code(Generator(NetworkConfig()), torch.zeros(16))
    assert parameters(folded) == pytest.approx(33.32e6, abs=0.005e6)


@pytest.mark.parametrize("kind", [Generator, StyleEncoder, Discriminator])
def test_every_channel_count_scales_with_the_width(kind: type[nn.Module]) -> None:
    def channels(width: int) -> list[tuple[int, int]]:
        with torch.device("meta"):
            network = kind(NetworkConfig(width=width))
        return [(m.in_channels, m.out_channels) for m in network.modules() if isinstance(m, nn.Conv2d)]

    def scaled(count: int) -> int:
        return count if count in (1, 2) else 3 * count  # images and masks keep their channels

    assert channels(12) == [(scaled(i), scaled(o)) for i, o in channels(4)]
    assert max(o for _, o in channels(4)) == 8 * 4


def test_code_generators_do_not_scale_with_the_width() -> None:
    with torch.device("meta"):
        assert parameters(CodeGenerators(NetworkConfig(width=16))) == parameters(CodeGenerators(NetworkConfig()))


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_generator_gives_output_of_input_size(generator: Generator, size: tuple[int, int]) -> None:
    with torch.no_grad():
        assert generator(image(size=size), a_seg()).shape == (2, 2, *size)
        assert generator(image(size=size), a_self(code())).shape == (2, 2, *size)
        assert generator(image(size=size), a_da(code(), Domain.INTER)).shape == (2, 1, *size)
        assert generator(one_hot_mask(size=size), a_da(code(), Domain.INTRA)).shape == (2, 1, *size)


@pytest.mark.parametrize("size", [*SIZES, (256, 256)], ids=str)
@pytest.mark.parametrize(("kind", "outputs"), [(StyleEncoder, 16), (Discriminator, 1)])
def test_style_encoder_and_discriminator_take_any_input_size(
    kind: type[nn.Module], outputs: int, size: tuple[int, int]
) -> None:
    network = kind(TINY)
    with torch.no_grad():
        assert network(image(size=size), Domain.INTRA).shape == (2, outputs)
        assert network(one_hot_mask(size=size), Domain.MASK).shape == (2, outputs)


@pytest.mark.parametrize("size", [-32, 0, 16, 40, 250, 257])
def test_wrong_input_size_is_refused_by_name(size: int) -> None:
    with pytest.raises(ValueError, match=rf"network\.input_size .*{size}"):
        NetworkConfig(input_size=size)


@pytest.mark.parametrize("width", [0, -4])
def test_wrong_width_is_refused_by_name(width: int) -> None:
    with pytest.raises(ValueError, match=rf"network\.width .*{width}"):
        NetworkConfig(width=width)


# Parts


def test_adain_is_one_plus_gamma_times_instance_norm_plus_beta() -> None:
    adain = AdaptiveInstanceNorm(3).double()
    x, style = image(count=2).double().repeat(1, 3, 1, 1), code().double()
    x[:, 1] *= 5
    x[:, 2] += 3
    gamma_beta = style @ adain.style.weight.T + adain.style.bias
    gamma, beta = gamma_beta[:, :3, None, None], gamma_beta[:, 3:, None, None]
    mean = x.mean(dim=(2, 3), keepdim=True)
    variance = ((x - mean) ** 2).mean(dim=(2, 3), keepdim=True)
    expected = (1 + gamma) * (x - mean) / torch.sqrt(variance + 1e-5) + beta
    torch.testing.assert_close(adain(x, style), expected)


def test_adain_gives_each_channel_the_mean_beta_and_the_deviation_of_its_scale() -> None:
    adain = AdaptiveInstanceNorm(2).double()
    out = adain(image(count=2).double().repeat(1, 2, 1, 1), code().double())
    scale, shift = adain.affine(code().double())
    torch.testing.assert_close(out.mean(dim=(2, 3)), shift)
    torch.testing.assert_close(out.std(dim=(2, 3), correction=0), scale.abs(), rtol=1e-4, atol=0)


def test_residual_sum_is_divided_by_the_square_root_of_two() -> None:
    assert residual_sum(torch.tensor(3.0), torch.tensor(5.0)).item() == pytest.approx(8 / math.sqrt(2))


@pytest.mark.parametrize("encoder_code", [None, code()], ids=["plain", "adain"])
@pytest.mark.parametrize("down", [False, True])
def test_encoder_block_is_norm_activation_conv_pool_norm_activation_conv(
    down: bool, encoder_code: Tensor | None
) -> None:
    block = EncoderBlock(2, 4, down=down, affine=True).double()
    style = None if encoder_code is None else encoder_code.double()
    x = one_hot_mask().double() + image().double()
    residual = block.conv1(F.leaky_relu(block.norm1(x, style), 0.2))
    residual = F.avg_pool2d(residual, 2) if down else residual
    residual = block.conv2(F.leaky_relu(block.norm2(residual, style), 0.2))
    shortcut = F.conv2d(x, block.shortcut.weight)
    shortcut = F.avg_pool2d(shortcut, 2) if down else shortcut
    torch.testing.assert_close(block(x, style), (shortcut + residual) / math.sqrt(2))


@pytest.mark.parametrize("decoder_code", [None, code()], ids=["plain", "adain"])
@pytest.mark.parametrize("up", [False, True])
def test_decoder_block_is_norm_activation_enlarge_conv_norm_activation_conv(
    up: bool, decoder_code: Tensor | None
) -> None:
    block = DecoderBlock(2, 4, up=up).double()
    style = None if decoder_code is None else decoder_code.double()
    x = one_hot_mask().double() + image().double()

    def enlarge(y: Tensor) -> Tensor:
        return y.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3) if up else y

    residual = enlarge(F.leaky_relu(block.norm1(x, style), 0.2))
    residual = block.conv2(F.leaky_relu(block.norm2(block.conv1(residual), style), 0.2))
    shortcut = F.conv2d(enlarge(x), block.shortcut.weight)
    torch.testing.assert_close(block(x, style), (shortcut + residual) / math.sqrt(2))


def test_blocks_have_a_shortcut_conv_only_where_channels_change() -> None:
    assert EncoderBlock(4, 4, down=True, affine=True).shortcut is None
    assert DecoderBlock(4, 4, up=True).shortcut is None
    assert StyleBlock(4, 4).shortcut is None
    assert StyleBlock(2, 4).shortcut.bias is None


def test_pooling_averages_an_odd_border_by_itself() -> None:
    x = torch.arange(9.0).reshape(1, 1, 3, 3)
    assert pool(x).flatten().tolist() == [2.0, 3.5, 6.5, 8.0]


def test_enlarging_repeats_pixels() -> None:
    x = torch.tensor([[[[1.0, 2.0]]]])
    assert unpool(x).tolist() == [[[[1, 1, 2, 2], [1, 1, 2, 2]]]]


def test_style_encoder_and_discriminator_are_free_of_norms() -> None:
    for network in (StyleEncoder(TINY), Discriminator(TINY)):
        assert not [m for m in network.modules() if isinstance(m, nn.InstanceNorm2d | AdaptiveInstanceNorm)]


@pytest.mark.parametrize("affine", [True, False])
def test_encoder_affine_decides_whether_the_plain_encoder_norms_learn(affine: bool) -> None:
    generator = Generator(NetworkConfig(width=2, encoder_affine=affine))
    encoder = [m for m in generator.encoder.modules() if isinstance(m, SwitchedNorm)]
    decoder = [m for m in generator.decoder.modules() if isinstance(m, SwitchedNorm)]
    assert len(encoder) == len(decoder) == 12
    assert {norm.plain.affine for norm in encoder} == {affine}
    assert {norm.plain.affine for norm in decoder} == {False}


def test_initial_weights_have_he_deviation_and_biases_are_zero() -> None:
    torch.manual_seed(0)
    network = StyleEncoder(NetworkConfig(width=16))
    initialise(network)
    conv = network.blocks[2].conv1
    assert conv.weight.std().item() == pytest.approx(math.sqrt(2 / (9 * conv.in_channels)), rel=0.05)
    assert all(not m.bias.any() for m in network.modules() if isinstance(m, nn.Linear))


# Codes


def test_the_codes_of_table_1() -> None:
    style = code()
    assert a_seg() == Codes(None, None, Domain.MASK)
    assert a_seg_dummy(style) == Codes(None, style, Domain.MASK)
    assert a_da(style, Domain.INTRA) == Codes(None, style, Domain.INTRA)
    assert a_self(style) == Codes(style, None, Domain.MASK)


@torch.no_grad()
def test_a_self_and_a_seg_differ_and_so_do_two_encoder_codes(generator: Generator) -> None:
    plain, one, two = (generator(image(), codes) for codes in (a_seg(), a_self(code(1)), a_self(code(2))))
    assert not torch.allclose(plain, one)
    assert not torch.allclose(one, two)


@torch.no_grad()
def test_the_decoder_code_changes_the_image(generator: Generator) -> None:
    plain, one, two = (generator(image(), Codes(None, decoder, Domain.INTER)) for decoder in (None, code(1), code(2)))
    assert not torch.allclose(plain, one)
    assert not torch.allclose(one, two)


@torch.no_grad()
@pytest.mark.parametrize(
    ("part", "reaches"),
    [
        ("encoder adaptive", {"a_self"}),
        ("encoder plain", {"a_seg", "a_da"}),
        ("decoder adaptive", {"a_da"}),
        ("encoder conv", {"a_seg", "a_da", "a_self"}),
        ("image_head", {"a_da"}),
        ("mask_head", {"a_seg", "a_self"}),
    ],
)
def test_a_code_takes_its_own_norms_and_head_and_no_others(generator: Generator, part: str, reaches: set[str]) -> None:
    tasks = {"a_seg": a_seg(), "a_self": a_self(code()), "a_da": a_da(code(), Domain.INTRA)}
    other = disturbed(generator, lambda name: all(word in name for word in part.split()))
    changed = {
        task for task, codes in tasks.items() if not torch.equal(generator(image(), codes), other(image(), codes))
    }
    assert changed == reaches


@torch.no_grad()
def test_an_encoder_code_without_gamma_and_beta_is_plain_instance_norm() -> None:
    torch.manual_seed(0)
    generator = Generator(NetworkConfig(width=2, encoder_affine=False)).eval()
    for module in generator.modules():
        if isinstance(module, AdaptiveInstanceNorm):
            nn.init.zeros_(module.style.weight)
            nn.init.zeros_(module.style.bias)
    torch.testing.assert_close(generator(image(), a_self(code())), generator(image(), a_seg()))


@torch.no_grad()
def test_each_image_of_a_batch_is_translated_by_its_own_code(generator: Generator) -> None:
    generator.double()
    u, encoder, decoder = image().double(), code(1).double(), code(2).double()
    both = generator(u, Codes(encoder, decoder, Domain.INTER))
    for row in (slice(0, 1), slice(1, 2)):
        torch.testing.assert_close(both[row], generator(u[row], Codes(encoder[row], decoder[row], Domain.INTER)))


@torch.no_grad()
@pytest.mark.parametrize(("stem", "image_changes"), [("image_stem", True), ("mask_stem", False)])
@pytest.mark.parametrize("kind", [Generator, StyleEncoder, Discriminator])
def test_images_and_masks_have_stems_of_their_own(kind: type[nn.Module], stem: str, image_changes: bool) -> None:
    torch.manual_seed(0)
    network = kind(TINY)
    other = disturbed(network, lambda name: name.startswith(stem))
    task = a_da(code(), Domain.INTER) if kind is Generator else Domain.MASK
    assert torch.equal(network(image(), task), other(image(), task)) is not image_changes
    assert torch.equal(network(one_hot_mask(), task), other(one_hot_mask(), task)) is image_changes


def test_the_supervised_task_trains_neither_adain_nor_the_image_head(generator: Generator) -> None:
    generator(image(), a_seg()).square().sum().backward()
    untrained = {name for name, parameter in generator.named_parameters() if parameter.grad is None}
    expected = {
        name
        for name, _ in generator.named_parameters()
        if "adaptive" in name or name.startswith(("image_head", "mask_stem"))
    }
    assert untrained == expected


# Code generators, S and D


@pytest.mark.parametrize("shared", [False, True])
def test_code_generators_give_a_code_of_sixteen_for_every_head(shared: bool) -> None:
    torch.manual_seed(0)
    networks = CodeGenerators(NetworkConfig(shared_code_trunk=shared))
    z = torch.randn(3, 4)
    with torch.no_grad():
        codes = [networks.f_e(z), *(networks.f_d(z, domain) for domain in Domain)]
    assert all(one.shape == (3, 16) for one in codes)
    assert all(not torch.allclose(a, b) for i, a in enumerate(codes) for b in codes[:i])


@pytest.mark.parametrize(("shared", "trunks"), [(False, 2), (True, 1)])
def test_code_generators_have_two_trunks_or_one(shared: bool, trunks: int) -> None:
    networks = CodeGenerators(NetworkConfig(shared_code_trunk=shared))
    z = torch.randn(1, 4)
    in_common = reached(networks, networks.f_e(z)) & reached(networks, networks.f_d(z, Domain.MASK))
    assert len(in_common) == (8 if shared else 0)  # weights and biases of four layers
    trunk_parameters = 4 * 512 + 512 + 3 * (512 * 512 + 512)
    assert parameters(networks) == 3_975_232 + (trunks - 1) * trunk_parameters


def reached(network: nn.Module, output: Tensor) -> set[str]:
    """Names of the parameters that ``output`` depends on."""
    names, values = zip(*network.named_parameters(), strict=True)
    gradients = torch.autograd.grad(output.sum(), values, allow_unused=True)
    return {name for name, gradient in zip(names, gradients, strict=True) if gradient is not None}


@torch.no_grad()
@pytest.mark.parametrize("kind", [StyleEncoder, Discriminator])
def test_style_encoder_and_discriminator_have_a_head_for_each_domain(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    network = kind(TINY)
    outputs = {domain: network(image(), domain) for domain in Domain}
    assert not torch.allclose(outputs[Domain.INTRA], outputs[Domain.INTER])
    assert not torch.allclose(outputs[Domain.INTRA], outputs[Domain.MASK])
    other = disturbed(network, lambda name: name.startswith(f"heads.{Domain.INTER.value}."))
    changed = {domain for domain in Domain if not torch.equal(other(image(), domain), outputs[domain])}
    assert changed == {Domain.INTER}
