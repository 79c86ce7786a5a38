"""Each term of the losses by hand, and where its gradient stops."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from cxredge_train.losses import (
    adversarial,
    cycle_consistency,
    diversity,
    inter_consistency,
    intra_consistency,
    one_hot,
    r1_penalty,
    segmentation,
    segmentation_style,
    style_reconstruction,
)


def test_segmentation_is_cross_entropy_weighted_by_the_true_class() -> None:
    logits = torch.tensor([[[[2.0, -1.0]], [[0.5, 3.0]]]])  # background, lung; two pixels
    masks = torch.tensor([[[False, True]]])
    background = -math.log(math.exp(2.0) / (math.exp(2.0) + math.exp(0.5)))
    lung = -math.log(math.exp(3.0) / (math.exp(-1.0) + math.exp(3.0)))
    expected = (0.7 * background + 1.0 * lung) / (0.7 + 1.0)
    assert segmentation(logits, masks, (0.7, 1.0)).item() == pytest.approx(expected, rel=1e-6)


def test_masks_are_shown_as_background_and_lung() -> None:
    assert one_hot(torch.tensor([[[True, False]]])).tolist() == [[[[0.0, 1.0]], [[1.0, 0.0]]]]


def test_adversarial_loss_is_binary_cross_entropy_with_logits() -> None:
    logits = torch.tensor([[2.0], [-1.0]])
    real = (math.log(1 + math.exp(-2.0)) + math.log(1 + math.exp(1.0))) / 2
    generated = (math.log(1 + math.exp(2.0)) + math.log(1 + math.exp(-1.0))) / 2
    assert adversarial(logits, real=True).item() == pytest.approx(real, rel=1e-6)
    assert adversarial(logits, real=False).item() == pytest.approx(generated, rel=1e-6)


def test_the_generators_adversarial_loss_does_not_saturate() -> None:
    logits = torch.tensor([[-20.0]], requires_grad=True)  # D is sure that it was generated
    adversarial(logits, real=True).backward()
    assert logits.grad is not None
    assert logits.grad.item() == pytest.approx(-1, abs=1e-6)


def test_r1_is_half_the_squared_norm_of_the_gradient_averaged_over_the_batch() -> None:
    images = torch.tensor([[[[1.0, 2.0]]], [[[3.0, -1.0]]]], requires_grad=True)
    logits = (images**2).sum(dim=(1, 2, 3))[:, None]  # gradient 2x
    expected = (0.5 * 4 * (1 + 4) + 0.5 * 4 * (9 + 1)) / 2
    assert r1_penalty(logits, images).item() == pytest.approx(expected)


def test_r1_of_a_network_is_that_of_finite_differences_and_trains_it() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.Softplus(), nn.Flatten(), nn.Linear(12, 1)).double()
    images = torch.randn(3, 1, 4, 4).double().requires_grad_()
    penalty = r1_penalty(network(images), images)
    squares = torch.zeros(3)
    with torch.no_grad():
        for pixel in range(16):
            change = torch.zeros(16).double()
            change[pixel] = 1e-5
            nudge = change.reshape(1, 1, 4, 4)
            squares += (((network(images + nudge) - network(images - nudge)) / 2e-5) ** 2)[:, 0]
    assert penalty.item() == pytest.approx(0.5 * squares.mean().item(), rel=1e-5)
    assert torch.autograd.grad(penalty, list(network.parameters()), allow_unused=True)[0].abs().sum() > 0


@pytest.mark.parametrize("term", [segmentation_style, style_reconstruction, cycle_consistency, diversity])
def test_these_terms_are_mean_absolute_differences(term: Callable[[Tensor, Tensor], Tensor]) -> None:
    one, other = torch.tensor([[1.0, -2.0], [0.0, 4.0]]), torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    assert term(one, other).item() == pytest.approx((1 + 2 + 0 + 3) / 4)


@pytest.mark.parametrize("term", [inter_consistency, intra_consistency])
def test_self_consistency_is_the_mean_absolute_difference_of_the_logits(
    term: Callable[[Tensor, Tensor], Tensor],
) -> None:
    teacher, student = torch.tensor([[[[4.0]], [[-1.0]]]]), torch.tensor([[[[1.0]], [[1.0]]]])
    assert term(teacher, student).item() == pytest.approx((3 + 2) / 2)


@pytest.mark.parametrize(
    ("term", "first", "second"),
    [
        (segmentation_style, True, True),
        (style_reconstruction, True, True),
        (cycle_consistency, True, True),
        (diversity, True, False),
        (inter_consistency, False, True),
        (intra_consistency, False, True),
    ],
)
def test_where_the_gradient_goes(term: Callable[[Tensor, Tensor], Tensor], first: bool, second: bool) -> None:
    arguments = [torch.randn(2, 2, 3, 3, requires_grad=True) for _ in range(2)]
    term(*arguments).backward()
    assert [argument.grad is not None for argument in arguments] == [first, second]


def test_half_precision_is_computed_in_single() -> None:
    one, other = (torch.randn(2, 2, 8, 8, generator=torch.Generator().manual_seed(i)).bfloat16() for i in (0, 1))
    masks = other[:, 0] > 0
    pairs = [(term(one, other), term(one.float(), other.float())) for term in (cycle_consistency, inter_consistency)]
    pairs.append((segmentation(one, masks, (0.7, 1.0)), segmentation(one.float(), masks, (0.7, 1.0))))
    pairs.append((adversarial(one, real=True), adversarial(one.float(), real=True)))
    for half, single in pairs:
        assert half.dtype == torch.float32
        assert half.item() == single.item()
