"""In which precision each layer computes."""

from __future__ import annotations

from collections import Counter

import onnx
import pytest

from cxredge.contract import Contract
from cxredge_calibration.layers import find_layers, prepare_graph
from cxredge_calibration.quantisation import quantise
from cxredge_export.layers import LayerPrecision, layer_precisions
from cxredge_export.precision import to_fp16

CONTRACT = Contract(name="tiny", width=2, input_size=32, code="a_seg", licence="none")
CONVOLUTIONS = ("Conv", "ConvTranspose")


def precisions(model: onnx.ModelProto) -> Counter[tuple[str, str]]:
    return Counter((layer.operator, layer.precision) for layer in layer_precisions(model))


@pytest.fixture(scope="module")
def quantised(converted: onnx.ModelProto) -> tuple[onnx.ModelProto, int]:
    graph = prepare_graph(converted, CONTRACT)
    layers = find_layers(graph)
    return quantise(graph, layers, {layer.source: (-3.0, 3.0) for layer in layers}), len(layers)


def test_every_operator_of_an_fp32_model_is_in_fp32(converted: onnx.ModelProto) -> None:
    found = list(layer_precisions(converted))
    assert {layer.precision for layer in found} == {"fp32"}
    assert len(found) == len([node for node in converted.graph.node if node.op_type not in ("Identity", "Constant")])


def test_parameters_are_counted_once_a_layer(converted: onnx.ModelProto) -> None:
    sizes = {tensor.name: onnx.numpy_helper.to_array(tensor).size for tensor in converted.graph.initializer}
    convolutions = [node for node in converted.graph.node if node.op_type in CONVOLUTIONS]
    expected = sum(sizes[name] for node in convolutions for name in node.input[1:])
    found = [layer for layer in layer_precisions(converted) if layer.operator in CONVOLUTIONS]
    assert sum(layer.parameters for layer in found) == expected
    assert all(layer.name in sizes for layer in found)


def test_in_an_fp16_model_only_the_instance_norms_are_in_fp32(converted: onnx.ModelProto) -> None:
    found = precisions(to_fp16(converted))
    assert {operator for operator, precision in found if precision == "fp32"} == {"InstanceNormalization"}
    assert {precision for _, precision in found} == {"fp32", "fp16"}


def test_in_an_int8_model_the_quantised_convolutions_are_told(quantised: tuple[onnx.ModelProto, int]) -> None:
    model, count = quantised
    for graph, remainder in ((model, "fp32"), (to_fp16(model), "fp16")):
        found = precisions(graph)
        assert sum(found[operator, "int8"] for operator in CONVOLUTIONS) == count
        others = sum(found[operator, remainder] for operator in CONVOLUTIONS)
        assert others > 0
        assert {operator for operator, precision in found if precision == "int8"} <= set(CONVOLUTIONS)


def test_quantised_layers_keep_their_names_and_parameters(
    converted: onnx.ModelProto, quantised: tuple[onnx.ModelProto, int]
) -> None:
    before = {layer.name: layer.parameters for layer in layer_precisions(converted) if layer.operator in CONVOLUTIONS}
    after = {layer.name: layer.parameters for layer in layer_precisions(quantised[0]) if layer.operator in CONVOLUTIONS}
    assert after == before


def test_a_layer_is_a_json_object() -> None:
    layer = LayerPrecision("conv.weight", "Conv", "int8", 9)
    assert layer.to_dict() == {"name": "conv.weight", "operator": "Conv", "precision": "int8", "parameters": 9}
