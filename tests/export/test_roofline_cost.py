"""The cost of layers, by hand for small graphs, and the floors of design for the folded networks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from cxredge.benchmark.roofline import GPUS, LayerCost, floor_of
from cxredge_export.conversion import to_onnx
from cxredge_export.cost import macs
from cxredge_export.folding import FOLDS, TRANSPOSED_FOLDS, fold, fold_code
from cxredge_export.roofline_cost import layer_costs
from cxredge_train.networks import Generator, NetworkConfig

SIDE = 8


def graph_of(nodes: list[onnx.NodeProto], **constants: np.ndarray) -> onnx.ModelProto:
    """A graph from ``x`` ``(N, 1, 8, 8)`` to ``y``."""
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1, SIDE, SIDE]) for name in "xy"]
    weights = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    graph = helper.make_graph(nodes, "test", ends[:1], ends[1:], weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def conv(source: str, target: str, weight: str) -> onnx.NodeProto:
    return helper.make_node("Conv", [source, weight], [target], pads=[1, 1, 1, 1], name=target)


WEIGHT = np.ones((4, 1, 3, 3), np.float32)
BACK = np.ones((1, 4, 3, 3), np.float32)
PLANE = SIDE * SIDE


def test_a_conv_reads_its_input_and_weights_and_writes_its_output() -> None:
    costs = layer_costs(graph_of([conv("x", "h", "a"), conv("h", "y", "b")], a=WEIGHT, b=BACK), batch=3)
    assert [(cost.op, cost.precision) for cost in costs] == [("Conv", "fp32")] * 2
    assert [cost.flops for cost in costs] == [2 * 3 * PLANE * 36] * 2
    assert [cost.bytes for cost in costs] == [4 * (3 * PLANE * (1 + 4) + 36)] * 2


def test_a_transposed_conv_uses_each_weight_once_for_a_pixel_of_its_input() -> None:
    up = helper.make_node("ConvTranspose", ["h", "b"], ["y"], kernel_shape=[4, 4], strides=[2, 2], pads=[1, 1, 1, 1])
    down = helper.make_node("Conv", ["x", "a"], ["h"], kernel_shape=[4, 4], strides=[2, 2], pads=[1, 1, 1, 1])
    costs = layer_costs(graph_of([down, up], a=np.ones((4, 1, 4, 4), np.float32), b=np.ones((4, 1, 4, 4), np.float32)))
    assert [cost.flops for cost in costs] == [2 * 4 * (PLANE // 4) * 16] * 2


def test_an_instance_norm_passes_three_times_and_its_activation_is_free() -> None:
    nodes = [
        conv("x", "h", "a"),
        helper.make_node("InstanceNormalization", ["h", "scale", "bias"], ["n"]),
        helper.make_node("LeakyRelu", ["n"], ["r"]),
        conv("r", "y", "b"),
    ]
    ones = np.ones(4, np.float32)
    costs = layer_costs(graph_of(nodes, a=WEIGHT, b=BACK, scale=ones, bias=ones))
    assert [cost.op for cost in costs] == ["Conv", "InstanceNormalization", "Conv"]
    assert costs[1].flops == 0
    assert costs[1].bytes == 4 * (3 * 4 * PLANE + 2 * 4)


def test_a_quantised_conv_reads_bytes_and_computes_in_int8() -> None:
    scale, zero = np.array(0.1, np.float32), np.array(0, np.int8)
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "s", "z"], ["a"]),
        conv("d", "h", "a"),
        helper.make_node("Cast", ["h"], ["half"], to=TensorProto.FLOAT16),
        helper.make_node("Cast", ["half"], ["g"], to=TensorProto.FLOAT),
        conv("g", "y", "b"),
    ]
    costs = layer_costs(graph_of(nodes, w=WEIGHT.astype(np.int8), b=BACK, s=scale, z=zero))
    assert [cost.precision for cost in costs] == ["int8", "fp32"]
    assert costs[0].bytes == PLANE + 36 + 2 * 4 * PLANE, "bytes in, halves out"
    assert costs[1].bytes == 2 * 4 * PLANE + 4 * 36 + 4 * PLANE


def test_the_model_is_left_as_it_is() -> None:
    model = graph_of([conv("x", "y", "a")], a=np.ones((1, 1, 3, 3), np.float32))
    before = model.SerializeToString()
    layer_costs(model, 5)
    assert model.SerializeToString() == before


def folded(width: int) -> onnx.ModelProto:
    torch.manual_seed(0)
    generator = Generator(NetworkConfig(width=width)).eval()
    return to_onnx(fold(fold_code(generator, None), TRANSPOSED_FOLDS), 256)


def test_phases_do_not_raise_the_floor(generator: Generator) -> None:
    network = fold_code(generator, None)
    in_phases, transposed = (to_onnx(fold(network, folds), 32) for folds in (FOLDS, TRANSPOSED_FOLDS))
    assert in_phases != transposed
    assert layer_costs(in_phases) == layer_costs(transposed)


def as_fp16(costs: Iterable[LayerCost]) -> list[LayerCost]:
    """Costs of an FP32 network as they would be in FP16."""
    return [replace(cost, bytes=cost.bytes / 2, precision="fp16") for cost in costs]


def as_int8(costs: Iterable[LayerCost]) -> list[LayerCost]:
    """Costs of an FP32 network whose convs read INT8 and write FP16, and whose norms do the reverse."""
    share = {"Conv": 3 / 4, "ConvTranspose": 3 / 4, "InstanceNormalization": 5 / 6}
    return [replace(cost, bytes=cost.bytes * share[cost.op], precision="int8") for cost in as_fp16(costs)]


FLOORS = {
    "H200": {64: (0.092, 0.061), 32: (0.038, 0.027)},
    "RTX 4090": {64: (0.40, 0.28), 32: (0.18, 0.13)},
    "AGX Orin": {64: (2.15, 1.42), 32: (0.89, 0.64)},
    "Orin Nano": {64: (7.6, 4.6), 32: (2.8, 1.9)},
}
"""Estimates of the design in ms at batch 1, by width: FP16 and INT8."""


@pytest.mark.parametrize("width", [32, pytest.param(64, marks=pytest.mark.slow)])
def test_the_floors_of_the_folded_network_are_those_of_the_design(width: int) -> None:
    model = folded(width)
    costs = layer_costs(model)
    assert sum(cost.flops for cost in costs) == 2 * macs(model)
    for roof in GPUS:
        for wanted, typed in zip(FLOORS.get(roof.name, {}).get(width, ()), (as_fp16, as_int8), strict=False):
            floor = floor_of(typed(costs), roof)
            assert floor is not None
            assert floor.milliseconds == pytest.approx(wanted, rel=0.25), (roof.name, typed.__name__)
    norms = sum(cost.bytes for cost in costs if cost.op == "InstanceNormalization")
    assert 0.4 < norms / sum(cost.bytes for cost in costs) < 0.6, "half of the bytes are passes of instance norms"
