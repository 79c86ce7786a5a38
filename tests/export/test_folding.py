"""Folding a code is exact, leaves the generator as it was, and drops what the path does not use."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from cxredge_export.folding import DirectPath, constant_norm, fold_code
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


@pytest.fixture
def precise(generator: Generator) -> Generator:
    """The generator in float64."""
    return copy.deepcopy(generator).double()


def image(size: int = 32) -> Tensor:
    return torch.rand(3, 1, size, size, generator=torch.Generator().manual_seed(1)).double() * 2 - 1


def code(seed: int) -> Tensor:
    return torch.randn(16, generator=torch.Generator().manual_seed(seed)).double()


@torch.no_grad()
def lung_logit(generator: Generator, codes: Codes, size: int = 32) -> Tensor:
    logits = generator(image(size), codes)
    return logits[:, 1:] - logits[:, :1]


@torch.no_grad()
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("size", [32, 48])
def test_a_folded_encoder_code_gives_the_logits_of_a_self(precise: Generator, seed: int, size: int) -> None:
    folded = DirectPath(fold_code(precise, code(seed)))
    expected = lung_logit(precise, a_self(code(seed)[None].expand(3, 16)), size)
    torch.testing.assert_close(folded(image(size)), expected, rtol=0, atol=1e-9)
    assert (expected - lung_logit(precise, a_seg(), size)).abs().max() > 1e-3  # the code does something


@torch.no_grad()
def test_a_folded_encoder_code_is_exact_in_single_precision_too(generator: Generator) -> None:
    folded = DirectPath(fold_code(generator, code(0).float()))
    logits = generator(image().float(), a_self(code(0).float()[None].expand(3, 16)))
    torch.testing.assert_close(folded(image().float()), logits[:, 1:] - logits[:, :1], rtol=0, atol=1e-3)


@torch.no_grad()
@pytest.mark.parametrize("encoder_affine", [True, False])
def test_without_a_code_the_path_is_a_seg(encoder_affine: bool) -> None:
    torch.manual_seed(0)
    generator = Generator(NetworkConfig(width=2, input_size=32, encoder_affine=encoder_affine)).double().eval()
    initialise(generator)
    folded = DirectPath(fold_code(generator, None))
    assert torch.equal(folded(image()), lung_logit(generator, a_seg()))


@torch.no_grad()
def test_a_code_can_be_folded_where_the_encoder_has_no_affine_of_its_own() -> None:
    torch.manual_seed(0)
    generator = Generator(NetworkConfig(width=2, input_size=32, encoder_affine=False)).double().eval()
    folded = DirectPath(fold_code(generator, code(0)))
    expected = lung_logit(generator, a_self(code(0)[None].expand(3, 16)))
    torch.testing.assert_close(folded(image()), expected, rtol=0, atol=1e-9)


def test_the_given_generator_is_left_as_it_was(precise: Generator) -> None:
    before = {name: tensor.clone() for name, tensor in precise.state_dict().items()}
    fold_code(precise, code(0))
    fold_code(precise, None)
    after = precise.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.parametrize("encoder_code", [None, code(0)], ids=["a_seg", "a_self"])
def test_what_the_path_does_not_use_is_dropped(precise: Generator, encoder_code: Tensor | None) -> None:
    folded = fold_code(precise, encoder_code)
    assert not [module for module in folded.modules() if isinstance(module, AdaptiveInstanceNorm)]
    used = torch.autograd.grad(DirectPath(folded)(image()).square().sum(), list(folded.parameters()), allow_unused=True)
    assert all(gradient is not None for gradient in used)


def test_a_constant_norm_has_one_plus_gamma_and_beta(precise: Generator) -> None:
    norm = next(module for module in precise.encoder.modules() if isinstance(module, SwitchedNorm))
    constant = constant_norm(norm, code(0))
    gamma, beta = (norm.adaptive.style.weight @ code(0) + norm.adaptive.style.bias).chunk(2)
    assert isinstance(constant, nn.InstanceNorm2d)
    torch.testing.assert_close(constant.weight, 1 + gamma, rtol=0, atol=1e-12)
    torch.testing.assert_close(constant.bias, beta, rtol=0, atol=1e-12)


@torch.no_grad()
def test_the_direct_path_is_lung_minus_background(precise: Generator) -> None:
    logits = precise(image(), a_seg())
    out = DirectPath(fold_code(precise, None))(image())
    assert out.shape == (3, 1, 32, 32)
    assert torch.equal(out > 0, logits.argmax(dim=1, keepdim=True) == 1)
