"""The layers that may be quantised are found by their place and shape, in any graph."""

from __future__ import annotations

import onnx
import pytest
from onnx import helper

from cxredge import bundled_model
from cxredge.errors import CalibrationError
from cxredge_calibration.layers import find_layers, prepare_graph
from cxredge_calibration.model_file import read_model
from cxredge_calibration.phases import merge_phases


def test_stem_head_and_shortcut_are_never_quantised(layers):
    assert [layer.name for layer in layers] == ["plain", "down", "deep", "up"]


def test_layers_say_what_they_read_and_what_they_cost(layers):
    by_name = {layer.name: layer for layer in layers}
    assert by_name["down"].source == "p_"
    assert by_name["plain"].macs == 64 * 64 * 4 * 4 * 9
    assert by_name["down"].macs == 32 * 32 * 4 * 4 * 16
    assert by_name["up"].macs == 32 * 32 * 4 * 4 * 16  # every weight once for each pixel that is read


def test_the_bundled_model_has_its_24_big_convolutions():
    model, contract = read_model(bundled_model())
    graph = prepare_graph(merge_phases(model), contract)
    layers = find_layers(graph)
    nodes = {node.name: node for node in graph.graph.node}
    dims = {tensor.name: tuple(tensor.dims) for tensor in graph.graph.initializer}
    assert len(layers) == 24
    assert all(dims[nodes[layer.node].input[1]][2] >= 3 for layer in layers)
    assert all(nodes[layer.node].input[0] != graph.graph.input[0].name for layer in layers)


def test_an_older_opset_is_converted_and_the_model_left_as_it_is(make_network, make_contract):
    model = make_network(opset=17)
    graph = prepare_graph(model, make_contract())
    assert graph.opset_import[0].version == 20
    assert model.opset_import[0].version == 17
    assert len(find_layers(graph)) == 4


def test_nodes_without_names_get_their_own(make_network, make_contract):
    model = make_network()
    for node in model.graph.node:
        node.name = ""
    graph = prepare_graph(model, make_contract())
    names = [node.name for node in graph.graph.node]
    assert len(set(names)) == len(names)
    assert [layer.name for layer in find_layers(graph)] == ["plain", "down", "deep", "up"]


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_model_that_its_contract_calls_typed_is_refused(precision, make_network, make_contract):
    with pytest.raises(CalibrationError, match="not an FP32 model"):
        prepare_graph(make_network(), make_contract(precision=precision))


def test_a_model_with_quantised_nodes_is_refused_whatever_its_contract_says(make_network, make_contract):
    model = make_network()
    model.graph.node.append(helper.make_node("DequantizeLinear", ["q", "scale"], ["extra"]))
    with pytest.raises(CalibrationError, match="DequantizeLinear"):
        prepare_graph(model, make_contract())


def test_half_precision_weights_are_refused(make_network, make_contract):
    model = make_network()
    model.graph.initializer[0].data_type = onnx.TensorProto.FLOAT16
    with pytest.raises(CalibrationError, match="FP16"):
        prepare_graph(model, make_contract())


def test_a_network_without_big_convolutions_is_refused(make_network, make_contract):
    model = make_network()
    del model.graph.node[1:]
    model.graph.node[0].output[0] = "logits"
    with pytest.raises(CalibrationError, match="no convolution"):
        find_layers(prepare_graph(model, make_contract()))
