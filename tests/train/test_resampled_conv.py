"""A conv with pooling or enlargement beside it, as one conv: the same values and gradients, at the borders too."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cxredge_train.networks import StyleBlock, pool, residual_sum
from cxredge_train.resampled_conv import conv_then_pool, enlarge_then_conv, enlarged_kernel, pooled_kernel

both = pytest.mark.parametrize(
    ("merged", "apart"),
    [
        (conv_then_pool, lambda x, conv: F.avg_pool2d(conv(x), 2)),
        (enlarge_then_conv, lambda x, conv: conv(F.interpolate(x, scale_factor=2, mode="nearest"))),
    ],
    ids=["pool", "enlarge"],
)


@pytest.fixture
def conv() -> nn.Conv2d:
    torch.manual_seed(0)
    return nn.Conv2d(3, 5, 3, padding=1).double()


def image(height: int, width: int) -> Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(1)).double().requires_grad_()


@pytest.mark.parametrize("size", [(8, 8), (2, 6)])
@both
def test_one_conv_gives_the_values_and_gradients_of_two_steps(
    conv: nn.Conv2d,
    size: tuple[int, int],
    merged: Callable[[Tensor, nn.Conv2d], Tensor],
    apart: Callable[[Tensor, nn.Conv2d], Tensor],
) -> None:
    x = image(*size)
    torch.testing.assert_close(merged(x, conv), apart(x, conv), rtol=0, atol=1e-12)
    found, wanted = (torch.autograd.grad(f(x, conv).sin().sum(), (x, *conv.parameters())) for f in (merged, apart))
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-11)


def test_second_gradients_pass_as_the_r1_penalty_needs(conv: nn.Conv2d) -> None:
    x = image(4, 4)

    def penalty(output: Tensor) -> Tensor:
        (gradient,) = torch.autograd.grad(output.square().sum(), x, create_graph=True)
        return torch.autograd.grad(gradient.square().sum(), conv.weight)[0]

    found, wanted = penalty(conv_then_pool(x, conv)), penalty(F.avg_pool2d(conv(x), 2))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-10)
    assert wanted.abs().max() > 1


@pytest.mark.parametrize("kernel", [pooled_kernel, enlarged_kernel])
def test_kernels_are_summed_in_full_precision_under_autocast(kernel: Callable[[Tensor], Tensor]) -> None:
    weight = torch.randn(4, 4, 3, 3, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        found = kernel(weight)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), kernel(weight.double()), rtol=0, atol=1e-6)


@both
def test_training_in_bf16_and_channels_last_gets_the_gradients_of_fp32_within_its_rounding(
    merged: Callable[[Tensor, nn.Conv2d], Tensor], apart: Callable[[Tensor, nn.Conv2d], Tensor]
) -> None:
    torch.manual_seed(0)
    conv, x = nn.Conv2d(8, 8, 3, padding=1), torch.randn(2, 8, 16, 16)
    (wanted,) = torch.autograd.grad(apart(x, conv).square().mean(), conv.weight)
    last = nn.Conv2d(8, 8, 3, padding=1).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    last.load_state_dict(conv.state_dict())
    with torch.autocast("cpu", torch.bfloat16):
        output = merged(x.contiguous(memory_format=torch.channels_last), last)
        assert output.dtype == torch.bfloat16
        (found,) = torch.autograd.grad(output.float().square().mean(), last.weight)
    assert (found - wanted).norm() < 0.01 * wanted.norm()


@pytest.mark.parametrize("size", [(9, 8), (8, 9), (7, 5), (8, 6)])
def test_style_blocks_pool_odd_sides_too(size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    block = StyleBlock(3, 5).double()
    x = image(*size)
    residual = block.conv2(F.leaky_relu(pool(block.conv1(F.leaky_relu(x, 0.2))), 0.2))
    assert block.shortcut is not None
    expected = residual_sum(pool(block.shortcut(x)), residual)
    torch.testing.assert_close(block(x), expected, rtol=0, atol=1e-12)
