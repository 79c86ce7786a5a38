"""The report counts what PyTorch counts, gives design's figures, and measures the models in turns."""

from __future__ import annotations

import math

import onnx
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cxredge_export.conversion import to_onnx
from cxredge_export.cost import macs, measure_costs, parameters
from cxredge_export.folding import FOLDS, TRANSPOSED_FOLDS, fold, fold_code
from cxredge_train.networks import Generator, NetworkConfig


@pytest.fixture(scope="module")
def unfolded(generator: Generator) -> onnx.ModelProto:
    """The direct path of :func:`generator` with the fold ``adain`` only."""
    return to_onnx(fold_code(generator, None), 32)


def counted(network: nn.Module, size: int) -> int:
    """Multiply-accumulates for one image by PyTorch's own counter, which counts two operations for each."""
    image = torch.zeros(1, 1, size, size, device=next(network.parameters()).device)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(image)
    return counter.get_total_flops() // 2


@pytest.mark.parametrize(
    ("width", "before", "after", "in_phases"),
    [(64, 48.57, 31.38, 31.76), (32, 12.15, 7.86, 7.95), (16, 3.04, 1.97, 1.99)],
)
def test_folding_saves_what_the_design_says(width: int, before: float, after: float, in_phases: float) -> None:
    with torch.device("meta"):
        network = fold_code(Generator(NetworkConfig(width=width)), None)
    assert counted(network, 256) / 1e9 == pytest.approx(before, abs=0.006)
    assert counted(fold(network, TRANSPOSED_FOLDS), 256) / 1e9 == pytest.approx(after, abs=0.006)
    assert counted(fold(network, FOLDS), 256) / 1e9 == pytest.approx(in_phases, abs=0.006)


def test_a_model_has_the_operations_that_its_network_has(
    generator: Generator, unfolded: onnx.ModelProto, converted: onnx.ModelProto
) -> None:
    network = fold_code(generator, None)
    assert macs(unfolded) == counted(network, 32)
    assert macs(converted) == counted(fold(network, FOLDS), 32) < macs(unfolded)


def test_costs_are_of_each_model_by_its_name(unfolded: onnx.ModelProto, converted: onnx.ModelProto) -> None:
    costs = measure_costs({"before": unfolded, "after": converted}, threads=1, repeats=3)
    assert list(costs) == ["before", "after"]
    after = costs["after"]
    assert after.gmac == macs(converted) / 1e9
    assert after.bytes == len(converted.SerializeToString())
    assert after.parameters == sum(math.prod(tensor.dims) for tensor in converted.graph.initializer)
    assert after.parameters == parameters(converted) > 10_000
    assert all(0 < cost.latency_ms < 1000 for cost in costs.values())
    assert set(after.to_dict()) == {"gmac", "parameters", "bytes", "latency_ms"}
