"""The report of a_self: sizes of γ and β by layer, and their distance from a_seg."""

from __future__ import annotations

import pytest
import torch

from cxredge_train.code_report import layer_codes, root_mean_square
from cxredge_train.networks import Generator, NetworkConfig, SwitchedNorm


@pytest.fixture(params=[True, False], ids=["affine", "plain"])
def generator(request: pytest.FixtureRequest) -> Generator:
    torch.manual_seed(0)
    return Generator(NetworkConfig(width=2, input_size=32, encoder_affine=request.param))


def norms(generator: Generator) -> list[SwitchedNorm]:
    return [module for module in generator.encoder.modules() if isinstance(module, SwitchedNorm)]


def test_every_encoder_norm_is_reported_and_no_other(generator: Generator) -> None:
    codes = list(layer_codes(generator, torch.ones(16)))
    assert [code.layer for code in codes] == [f"encoder.{i}.norm{j}" for i in range(6) for j in (1, 2)]
    assert [code.channels for code in codes] == [norm.plain.num_features for norm in norms(generator)]


def test_sizes_are_those_of_gamma_and_beta(generator: Generator) -> None:
    for norm in norms(generator):
        torch.nn.init.zeros_(norm.adaptive.style.weight)
        channels = norm.plain.num_features
        norm.adaptive.style.bias.data = torch.cat([torch.full((channels,), 0.5), torch.full((channels,), -2.0)])
        if norm.plain.affine:
            torch.nn.init.constant_(norm.plain.weight, 1.25)
            torch.nn.init.constant_(norm.plain.bias, -1.0)
    seg_gamma, seg_beta = (0.25, -1.0) if generator.encoder[0].norm1.plain.affine else (0.0, 0.0)
    for code in layer_codes(generator, torch.ones(16)):
        assert (code.gamma, code.beta) == (pytest.approx(0.5), pytest.approx(2.0))
        assert code.gamma_from_seg == pytest.approx(0.5 - seg_gamma)
        assert code.beta_from_seg == pytest.approx(2.0 + seg_beta)


def test_a_self_that_starts_from_a_seg_is_at_no_distance(generator: Generator) -> None:
    for norm in norms(generator):
        norm.start_from_plain()
    for code in layer_codes(generator, torch.randn(16)):
        assert code.gamma_from_seg == code.beta_from_seg == 0


def test_the_code_that_is_given_matters(generator: Generator) -> None:
    one, other = (next(layer_codes(generator, torch.full((16,), value))) for value in (1.0, 2.0))
    assert one.gamma != other.gamma


def test_root_mean_square() -> None:
    assert root_mean_square(torch.tensor([3.0, 4.0])) == pytest.approx((12.5) ** 0.5)
