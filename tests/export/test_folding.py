"""Every fold is exact, at the borders too, leaves the network as it was, and drops what the path does not use."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cxredge_export.deployed import DeployedNetwork
from cxredge_export.folding import (
    FOLDS,
    constant_norm,
    enlarged_conv,
    fold,
    fold_code,
    parse_folds,
    pooled_conv,
)
from cxredge_train.networks import (
    AdaptiveInstanceNorm,
    Codes,
    Generator,
    NetworkConfig,
    SwitchedNorm,
    a_seg,
    a_self,
    initialise,
)

SUBSETS = [subset for count in (0, 1, 2, 5, 6) for subset in itertools.combinations(FOLDS, count)]


@pytest.fixture
def precise(generator: Generator) -> Generator:
    """The generator in float64, with biases."""
    precise = copy.deepcopy(generator).double()
    torch.manual_seed(5)
    for name, parameter in precise.named_parameters():
        if name.endswith("bias") and "plain" not in name:
            nn.init.normal_(parameter, 0.5, 0.5)
    return precise


@pytest.fixture
def network(precise: Generator) -> DeployedNetwork:
    """Its direct path with a_seg, without further folds."""
    return fold_code(precise, None)


def image(size: int = 32) -> Tensor:
    return torch.rand(3, 1, size, size, generator=torch.Generator().manual_seed(1)).double() * 2 - 1


def code(seed: int) -> Tensor:
    return torch.randn(16, generator=torch.Generator().manual_seed(seed)).double()


@torch.no_grad()
def lung_logit(generator: Generator, codes: Codes, size: int = 32) -> Tensor:
    logits = generator(image(size), codes)
    return logits[:, 1:] - logits[:, :1]


def layers(network: nn.Module, kind: type[nn.Module]) -> list[nn.Module]:
    return [layer for layer in network.modules() if isinstance(layer, kind)]


@torch.no_grad()
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [32, 48])
def test_a_folded_encoder_code_gives_the_logits_of_a_self(precise: Generator, seed: int, size: int) -> None:
    folded = fold_code(precise, code(seed))
    expected = lung_logit(precise, a_self(code(seed)[None].expand(3, 16)), size)
    torch.testing.assert_close(folded(image(size)), expected, rtol=0, atol=1e-9)
    assert (expected - lung_logit(precise, a_seg(), size)).abs().max() > 1e-3  # the code does something


@torch.no_grad()
@pytest.mark.parametrize("encoder_affine", [True, False])
def test_without_a_code_the_path_is_a_seg(encoder_affine: bool) -> None:
    torch.manual_seed(0)
    generator = Generator(NetworkConfig(width=2, input_size=32, encoder_affine=encoder_affine)).double().eval()
    initialise(generator)
    network = fold(fold_code(generator, None), ("shortcut", "pool-conv", "up-conv"))  # as the generator computes
    assert torch.equal(network(image()), lung_logit(generator, a_seg()))


@torch.no_grad()
def test_a_code_can_be_folded_where_the_encoder_has_no_affine_of_its_own() -> None:
    torch.manual_seed(0)
    generator = Generator(NetworkConfig(width=2, input_size=32, encoder_affine=False)).double().eval()
    expected = lung_logit(generator, a_self(code(0)[None].expand(3, 16)))
    torch.testing.assert_close(fold_code(generator, code(0))(image()), expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("encoder_code", [None, code(0)], ids=["a_seg", "a_self"])
def test_what_the_path_does_not_use_is_left_out(precise: Generator, encoder_code: Tensor | None) -> None:
    folded = fold_code(precise, encoder_code)
    assert not layers(folded, AdaptiveInstanceNorm)
    loss = folded(image()).square().sum()
    used = torch.autograd.grad(loss, list(folded.parameters()), allow_unused=True)
    assert all(gradient is not None for gradient in used)


def test_a_constant_norm_has_one_plus_gamma_and_beta(precise: Generator) -> None:
    norm = next(module for module in precise.encoder.modules() if isinstance(module, SwitchedNorm))
    constant = constant_norm(norm, code(0))
    gamma, beta = (norm.adaptive.style.weight @ code(0) + norm.adaptive.style.bias).chunk(2)
    torch.testing.assert_close(constant.weight, 1 + gamma, rtol=0, atol=1e-12)
    torch.testing.assert_close(constant.bias, beta, rtol=0, atol=1e-12)


@torch.no_grad()
def test_the_direct_path_is_lung_minus_background(precise: Generator, network: DeployedNetwork) -> None:
    logits = precise(image(), a_seg())
    assert network(image()).shape == (3, 1, 32, 32)
    assert torch.equal(network(image()) > 0, logits.argmax(dim=1, keepdim=True) == 1)


@torch.no_grad()
@pytest.mark.parametrize("folds", SUBSETS, ids="+".join)
def test_any_subset_of_the_folds_is_exact(network: DeployedNetwork, folds: tuple[str, ...]) -> None:
    torch.testing.assert_close(fold(network, folds)(image(48)), network(image(48)), rtol=0, atol=1e-10)


@torch.no_grad()
@pytest.mark.parametrize("order", [tuple(FOLDS), tuple(reversed(FOLDS))], ids=["forwards", "backwards"])
def test_folds_are_exact_in_any_order(network: DeployedNetwork, order: tuple[str, ...]) -> None:
    folded = network
    for name in order:
        folded = fold(folded, [name])
    torch.testing.assert_close(folded(image()), network(image()), rtol=0, atol=1e-10)
    assert parse_shape(folded) == parse_shape(fold(network, FOLDS))


def parse_shape(network: nn.Module) -> dict[str, torch.Size]:
    return {name: parameter.shape for name, parameter in network.named_parameters()}


@torch.no_grad()
def test_all_folds_flip_no_pixel_in_single_precision(generator: Generator) -> None:
    folded = fold(fold_code(generator, code(0).float()), FOLDS)
    logits = generator(image().float(), a_self(code(0).float()[None].expand(3, 16)))
    found, expected = folded(image().float()), logits[:, 1:] - logits[:, :1]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3)
    assert torch.equal(found > 0, expected > 0)
    assert (expected > 0).float().mean() not in (0, 1)


def test_no_bias_is_left_but_those_of_the_head(network: DeployedNetwork) -> None:
    def biases(one: DeployedNetwork) -> list[str]:
        convs = [(name, layer) for name, layer in one.named_modules() if isinstance(layer, nn.Conv2d)]
        return [name for name, conv in convs if conv.bias is not None]

    assert len(biases(network)) == 26
    assert biases(fold(network, ["norm-bias"])) == ["head.conv"]


def test_shortcuts_run_at_the_lower_resolution(network: DeployedNetwork) -> None:
    def orders(one: DeployedNetwork) -> list[list[str]]:
        return [[name for name, _ in block.shortcut.named_children()] for block in one.blocks]

    down, same, up = ["pool", "conv"], [[], [], [], []], ["conv", "enlarge"]
    assert orders(network) == [down[::-1]] * 3 + [["pool"]] + same + [["enlarge"]] + [up[::-1]] * 3
    assert orders(fold(network, ["shortcut"])) == [down] * 3 + [["pool"]] + same + [["enlarge"]] + [up] * 3


@pytest.mark.parametrize(("name", "kind"), [("pool-conv", nn.AvgPool2d), ("up-conv", nn.Upsample)])
def test_resampling_is_left_in_the_shortcuts_alone(network: DeployedNetwork, name: str, kind: type[nn.Module]) -> None:
    def counts(one: DeployedNetwork) -> tuple[int, int]:
        branches = ([block.residual for block in one.blocks], [block.shortcut for block in one.blocks])
        residual, shortcut = (sum(len(layers(branch, kind)) for branch in side) for side in branches)
        return residual, shortcut

    assert counts(network) == (4, 4)
    assert counts(fold(network, [name])) == (0, 4)


def test_the_head_has_one_output(network: DeployedNetwork) -> None:
    assert [type(layer) for layer in fold(network, ["head"]).head] == [nn.InstanceNorm2d, nn.LeakyReLU, nn.Conv2d]
    assert fold(network, ["head"]).get_parameter("head.conv.weight").shape[0] == 1


@torch.no_grad()
@pytest.mark.parametrize("shape", [(2, 2), (2, 6), (8, 4)])
@pytest.mark.parametrize("bias", [True, False])
def test_pooled_and_enlarged_convs_are_exact_at_the_borders(shape: tuple[int, int], bias: bool) -> None:
    conv = nn.Conv2d(3, 5, 3, padding=1, bias=bias).double()
    x = torch.randn(2, 3, *shape, dtype=torch.float64)
    pooled = pooled_conv(conv)
    torch.testing.assert_close(pooled(x), F.avg_pool2d(conv(x), 2), rtol=0, atol=1e-13)
    enlarged = enlarged_conv(conv)
    torch.testing.assert_close(enlarged(x), conv(F.interpolate(x, scale_factor=2)), rtol=0, atol=1e-13)


def test_what_is_given_is_left_as_it_was(precise: Generator) -> None:
    network = fold_code(precise, code(0))
    before = {name: tensor.clone() for name, tensor in (precise.state_dict() | network.state_dict()).items()}
    fold(network, FOLDS)
    after = precise.state_dict() | network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize(
    ("text", "folds"),
    [
        ("all", tuple(FOLDS)),
        ("none", ()),
        ("adain", ()),
        ("head,shortcut", ("shortcut", "head")),
        ("adain, up-conv", ("up-conv",)),
    ],
)
def test_folds_are_named_with_commas(text: str, folds: tuple[str, ...]) -> None:
    assert parse_folds(text) == folds


def test_an_unknown_fold_is_refused(network: DeployedNetwork) -> None:
    with pytest.raises(ValueError, match="'pool' is no fold; there are all, none, adain, norm-bias"):
        parse_folds("head,pool")
    with pytest.raises(ValueError, match="unknown fold 'pool'"):
        fold(network, ["pool"])
