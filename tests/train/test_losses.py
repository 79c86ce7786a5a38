"""Each term of the loss is the paper's, and trains the networks that the paper says it trains."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from cxredge_train.config import LossConfig
from cxredge_train.framework import Framework
from cxredge_train.losses import one_hot, segmentation, segmentation_style, supervised_losses, supervised_total
from cxredge_train.networks import Domain, NetworkConfig, a_seg


@pytest.fixture
def framework() -> Framework:
    torch.manual_seed(0)
    return Framework(NetworkConfig(width=2, input_size=32))


@pytest.fixture
def images() -> Tensor:
    return torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture
def masks(images: Tensor) -> Tensor:
    return images[:, 0] > 0.3


@pytest.fixture
def latents() -> Tensor:
    return torch.randn(2, 4, generator=torch.Generator().manual_seed(2))


def trained(module: nn.Module) -> set[str]:
    """Names of the parameters of ``module`` that have a gradient which is not zero."""
    return {name for name, p in module.named_parameters() if p.grad is not None and bool(p.grad.any())}


def test_segmentation_is_cross_entropy_weighted_by_the_true_class() -> None:
    logits = torch.tensor([[[[2.0, -1.0]], [[0.5, 3.0]]]])  # background, lung; two pixels
    masks = torch.tensor([[[False, True]]])
    background = -math.log(math.exp(2.0) / (math.exp(2.0) + math.exp(0.5)))
    lung = -math.log(math.exp(3.0) / (math.exp(-1.0) + math.exp(3.0)))
    expected = (0.7 * background + 1.0 * lung) / (0.7 + 1.0)
    assert segmentation(logits, masks, (0.7, 1.0)).item() == pytest.approx(expected, rel=1e-6)


def test_segmentation_of_half_precision_logits_is_computed_in_single() -> None:
    logits = torch.randn(1, 2, 8, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    masks = logits[:, 0].float() > 0
    loss = segmentation(logits, masks, (0.7, 1.0))
    assert loss.dtype == torch.float32
    assert loss.item() == segmentation(logits.float(), masks, (0.7, 1.0)).item()


def test_style_loss_is_the_mean_absolute_difference_of_the_codes() -> None:
    dummy, generated = torch.tensor([[1.0, -2.0], [0.0, 4.0]]), torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    assert segmentation_style(dummy, generated).item() == pytest.approx((1 + 2 + 0 + 3) / 4)


def test_masks_are_shown_as_background_and_lung() -> None:
    assert one_hot(torch.tensor([[[True, False]]])).tolist() == [[[[0.0, 1.0]], [[1.0, 0.0]]]]


def test_the_total_is_weighted_by_both_lambdas() -> None:
    losses = {"seg": torch.tensor(2.0), "style": torch.tensor(3.0)}
    assert supervised_total(losses, LossConfig()).item() == 5 * 2 + 1 * 3
    assert supervised_total(losses, LossConfig(lambda_seg=0.5, lambda_style=10)).item() == 0.5 * 2 + 10 * 3
    assert supervised_total({"seg": torch.tensor(2.0)}, LossConfig()).item() == 5 * 2


def test_the_segmentation_term_is_that_of_a_seg(framework: Framework, images: Tensor, masks: Tensor) -> None:
    losses = supervised_losses(framework, images, masks, None, LossConfig())
    expected = segmentation(framework.generator(images, a_seg()), masks, (0.7, 1.0))
    assert losses["seg"].item() == expected.item()


def test_the_style_term_compares_the_latents_code_with_that_of_the_generated_mask(
    framework: Framework, images: Tensor, masks: Tensor, latents: Tensor
) -> None:
    losses = supervised_losses(framework, images, masks, latents, LossConfig())
    generated = framework.generator(images, a_seg()).softmax(dim=1)
    difference = framework.code_generators.f_d(latents, Domain.MASK) - framework.style_encoder(generated, Domain.MASK)
    assert losses["style"].item() == pytest.approx(difference.abs().mean().item(), rel=1e-6)


def test_without_latents_the_style_term_takes_the_true_masks_code(
    framework: Framework, images: Tensor, masks: Tensor
) -> None:
    losses = supervised_losses(framework, images, masks, None, LossConfig())
    generated = framework.generator(images, a_seg()).softmax(dim=1)
    style_encoder = framework.style_encoder
    true = style_encoder(torch.stack([(~masks).float(), masks.float()], dim=1), Domain.MASK)
    difference = true - style_encoder(generated, Domain.MASK)
    assert losses["style"].item() == pytest.approx(difference.abs().mean().item(), rel=1e-6)


def test_without_weight_the_style_term_is_absent_and_only_the_generator_is_trained(
    framework: Framework, images: Tensor, masks: Tensor, latents: Tensor
) -> None:
    config = LossConfig(lambda_style=0)
    losses = supervised_losses(framework, images, masks, latents, config)
    assert set(losses) == {"seg"}
    supervised_total(losses, config).backward()
    assert trained(framework.generator)
    for other in (framework.code_generators, framework.style_encoder, framework.discriminator):
        assert not trained(other)


def test_the_style_term_with_latents_trains_s_and_the_mask_head_of_f_d_and_g(
    framework: Framework, images: Tensor, masks: Tensor, latents: Tensor
) -> None:
    supervised_losses(framework, images, masks, latents, LossConfig())["style"].backward()
    reached = trained(framework.code_generators)
    assert reached
    assert all(name.startswith(("decoder.trunk", "decoder.heads.mask")) for name in reached)
    assert any(name.startswith("decoder.heads.mask") for name in reached)
    assert any(name.startswith("mask_stem") for name in trained(framework.style_encoder))
    assert any(name.startswith("mask_head") for name in trained(framework.generator))
    assert not trained(framework.discriminator)


def test_the_style_term_with_a_true_mask_trains_s_and_g_but_not_f(
    framework: Framework, images: Tensor, masks: Tensor
) -> None:
    supervised_losses(framework, images, masks, None, LossConfig())["style"].backward()
    assert not trained(framework.code_generators)
    assert any(name.startswith("mask_stem") for name in trained(framework.style_encoder))
    assert trained(framework.generator)
    assert not trained(framework.discriminator)


def test_of_the_heads_of_s_the_style_term_trains_that_of_masks_alone(
    framework: Framework, images: Tensor, masks: Tensor, latents: Tensor
) -> None:
    supervised_losses(framework, images, masks, latents, LossConfig())["style"].backward()
    heads = {name.split(".")[1] for name in trained(framework.style_encoder) if name.startswith("heads.")}
    assert heads == {str(Domain.MASK.value)}
