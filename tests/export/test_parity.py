"""Parity sees what differs between a converted model and its network, and refuses it."""

from __future__ import annotations

import copy
import math

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from cxredge.errors import ParityError
from cxredge.preprocessing import network_input
from cxredge.radiograph import Radiograph
from cxredge_export.conversion import to_onnx
from cxredge_export.folding import FOLDS, fold, fold_code
from cxredge_export.parity import HALF, Parity, measure_parity, require_parity
from cxredge_export.reference import lung_logit, unfolded
from cxredge_train.networks import Generator, NetworkConfig, a_seg

SIZE = 32
GOOD = Parity(images=1, max_abs_difference=1e-4, pixels=65_536, flipped_pixels=0)


def spoilt(model: onnx.ModelProto, change: float) -> onnx.ModelProto:
    """A copy with ``change`` added to one weight of every convolution."""
    copied = copy.deepcopy(model)
    for tensor in copied.graph.initializer:
        if len(tensor.dims) == 4:
            values = numpy_helper.to_array(tensor).copy()
            values.flat[0] += change
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return copied


def test_a_faithful_model_has_no_flipped_pixel(
    converted: onnx.ModelProto, generator: Generator, radiographs: list[Radiograph]
) -> None:
    parity = measure_parity(converted, unfolded(generator, None), radiographs, SIZE)
    assert (parity.images, parity.pixels, parity.flipped_pixels) == (2, 2 * SIZE * SIZE, 0)
    assert 0 <= parity.max_abs_difference < 1e-3
    require_parity(parity)


def test_a_folded_a_self_of_another_width_and_size_is_faithful_to_its_code(radiographs: list[Radiograph]) -> None:
    torch.manual_seed(0)
    generator = Generator(NetworkConfig(width=3, input_size=48, encoder_affine=False)).eval()
    code = torch.randn(16, generator=torch.Generator().manual_seed(3))
    model = to_onnx(fold(fold_code(generator, code), FOLDS), 48)
    require_parity(measure_parity(model, unfolded(generator, code), radiographs, 48))
    with pytest.raises(ParityError):
        require_parity(measure_parity(model, unfolded(generator, None), radiographs, 48))


@pytest.mark.parametrize("change", [0.5, 0.01])
def test_a_spoilt_model_is_refused(
    converted: onnx.ModelProto, generator: Generator, radiographs: list[Radiograph], change: float
) -> None:
    parity = measure_parity(spoilt(converted, change), unfolded(generator, None), radiographs, SIZE)
    assert parity.max_abs_difference > 1e-3
    with pytest.raises(ParityError, match=r"differs from its original.*nothing was written"):
        require_parity(parity)


def test_differences_and_flips_are_those_of_the_logits(
    converted: onnx.ModelProto, generator: Generator, radiographs: list[Radiograph]
) -> None:
    shifted = copy.deepcopy(generator)
    with torch.no_grad():  # lung logit + 0.5 everywhere
        shifted.mask_head[2].bias += torch.tensor([0.0, 0.5])
    parity = measure_parity(converted, unfolded(shifted, None), radiographs, SIZE)
    assert parity.max_abs_difference == pytest.approx(0.5, abs=1e-3)
    logits = [lung_logit(generator, a_seg(), network_input(one, SIZE)[None, None]) for one in radiographs]
    expected = sum(int(((one <= 0) & (one + 0.5 > 0)).sum()) for one in logits)
    assert parity.flipped_pixels == pytest.approx(expected, abs=2)
    assert expected > 0


@pytest.mark.parametrize("where", ["model", "network", "both"])
def test_logits_that_are_not_numbers_are_refused(
    converted: onnx.ModelProto, generator: Generator, radiographs: list[Radiograph], where: str
) -> None:
    network = copy.deepcopy(generator)
    if where != "model":
        nn.init.constant_(network.mask_head[2].bias, math.nan)
    model = converted if where == "network" else spoilt(converted, math.nan)
    with pytest.raises(ParityError):
        require_parity(measure_parity(model, unfolded(network, None), radiographs, SIZE))


def test_a_comparison_of_nothing_is_refused(converted: onnx.ModelProto, generator: Generator) -> None:
    with pytest.raises((ParityError, ValueError)):
        require_parity(measure_parity(converted, unfolded(generator, None), [], SIZE))


@pytest.mark.parametrize(
    "parity",
    [
        GOOD,
        Parity(images=1, max_abs_difference=1e-3, pixels=65_536, flipped_pixels=0),
        Parity(images=49, max_abs_difference=1e-4, pixels=49 * 65_536, flipped_pixels=3),
    ],
    ids=["good", "at the limit", "three pixels of three million on the edge"],
)
def test_rounding_passes(parity: Parity) -> None:
    require_parity(parity)


@pytest.mark.parametrize(
    "parity",
    [
        Parity(images=1, max_abs_difference=1e-4, pixels=65_536, flipped_pixels=1),
        Parity(images=1, max_abs_difference=2e-3, pixels=65_536, flipped_pixels=0),
        Parity(images=1, max_abs_difference=math.nan, pixels=65_536, flipped_pixels=0),
        Parity(images=1, max_abs_difference=math.inf, pixels=65_536, flipped_pixels=0),
    ],
    ids=["a flipped pixel", "a large difference", "not a number", "infinite"],
)
def test_more_than_rounding_is_refused(parity: Parity) -> None:
    with pytest.raises(ParityError, match="nothing was written"):
        require_parity(parity)


def test_half_precision_has_its_own_tolerance() -> None:
    require_parity(Parity(images=1, max_abs_difference=0.1, pixels=65_536, flipped_pixels=50), HALF)
    for bad in (
        Parity(images=1, max_abs_difference=0.1, pixels=65_536, flipped_pixels=500),
        Parity(images=1, max_abs_difference=math.nan, pixels=65_536, flipped_pixels=0),
    ):
        with pytest.raises(ParityError, match="nothing was written"):
            require_parity(bad, HALF)


def test_parity_as_json_has_its_fields() -> None:
    assert GOOD.to_dict() == {"images": 1, "max_abs_difference": 1e-4, "pixels": 65_536, "flipped_pixels": 0}


def test_the_lung_logit_is_lung_minus_background(generator: Generator) -> None:
    image = np.random.default_rng(0).uniform(-1, 1, (1, 1, SIZE, SIZE)).astype(np.float32)
    with torch.no_grad():
        background, lung = generator(torch.from_numpy(image), a_seg())[0]
    np.testing.assert_array_equal(lung_logit(generator, a_seg(), image)[0, 0], (lung - background).numpy())
