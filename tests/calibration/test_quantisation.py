"""Q/DQ stands where NVIDIA's parser wants it, and nowhere else."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from cxredge_calibration.options import silent
from cxredge_calibration.quantisation import quantise
from cxredge_calibration.ranges import estimate_ranges
from cxredge_calibration.simulation import open_session, run

PIXELS = np.random.default_rng(1).uniform(-1, 1, (64, 64)).astype(np.float32)


@pytest.fixture
def bounds(graph, layers):
    found = estimate_ranges(graph, layers, [PIXELS], ["a"], "minmax", 1, silent)
    return {name: (one.low, one.high) for name, one in found.items()}


def producers(model: onnx.ModelProto) -> dict[str, onnx.NodeProto]:
    return {name: node for node in model.graph.node for name in node.output}


def initializers(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    return {tensor.name: onnx.numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def test_inputs_and_weights_of_the_chosen_layers_are_quantised_in_pairs(graph, layers, bounds):
    model = quantise(graph, layers, bounds)
    made, values = producers(model), initializers(model)
    for layer in layers:
        node = made[layer.output]
        for name in node.input[:2]:
            dequantise = made[name]
            quantised = made[dequantise.input[0]]
            assert (dequantise.op_type, quantised.op_type) == ("DequantizeLinear", "QuantizeLinear")
            assert values[quantised.input[2]].dtype == np.int8
            assert not values[quantised.input[2]].any()
            assert quantised.input[1:] == dequantise.input[1:]


def test_scales_are_symmetric_over_the_tensor_and_by_output_channel_of_the_weights(graph, layers, bounds):
    model = quantise(graph, layers, bounds)
    made, values = producers(model), initializers(model)
    for layer in layers:
        activation, weight = (made[made[name].input[0]] for name in made[layer.output].input[:2])
        assert values[activation.input[1]] == pytest.approx(max(map(abs, bounds[layer.source])) / 127)
        axis = 1 if layer.name == "up" else 0  # ConvTranspose has its output channels second
        others = tuple(i for i in range(4) if i != axis)
        largest = np.abs(values[f"{layer.name}.weight"]).max(axis=others)
        assert [attribute.i for attribute in weight.attribute if attribute.name == "axis"] == [axis]
        assert values[weight.input[1]] == pytest.approx(largest / 127, rel=0.01)


def test_biases_outputs_and_other_layers_stay_in_floating_point(graph, layers, bounds):
    model = quantise(graph, layers[:1], bounds)
    made, values = producers(model), initializers(model)
    assert values[made["p"].input[2]].dtype == np.float32
    assert made["p_"].input[0] == "p"
    untouched = {"stem": "radiograph", "down": "p_", "up": "e_", "shortcut": "s", "head": "a"}
    nodes = {node.name: node for node in model.graph.node}
    assert {name: nodes[name].input[0] for name in untouched} == untouched
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph.node) == 2


def test_the_result_is_close_to_the_model_but_not_the_same(graph, layers, bounds):
    wanted = run(open_session(graph, 1), PIXELS)[0]
    found = run(open_session(quantise(graph, layers, bounds), 1), PIXELS)[0]
    error = np.sqrt(np.square(found - wanted).mean() / np.square(wanted).mean())
    assert 1e-4 < error < 0.05


def test_the_model_itself_is_left_as_it_is_and_keeps_its_metadata(graph, layers, bounds):
    onnx.helper.set_model_props(graph, {"cxredge": "contract"})
    before = graph.SerializeToString()
    quantised = quantise(graph, layers, bounds)
    assert graph.SerializeToString() == before
    assert [(prop.key, prop.value) for prop in quantised.metadata_props] == [("cxredge", "contract")]


def test_without_layers_nothing_changes(graph, bounds):
    assert quantise(graph, [], bounds) == graph


def test_nvidias_compiler_takes_it_strongly_typed_with_a_dynamic_batch(graph, layers, bounds):
    trt = pytest.importorskip("tensorrt_rtx", reason="TensorRT for RTX is not installed")
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse(quantise(graph, layers, bounds).SerializeToString())
    assert parsed, [parser.get_error(index).desc() for index in range(parser.num_errors)]
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    profile.set_shape("radiograph", (1, 1, 64, 64), (4, 1, 64, 64), (16, 1, 64, 64))
    config.add_optimization_profile(profile)
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM89, 0)
    plan = builder.build_serialized_network(network, config)
    assert plan is not None
    assert plan.nbytes > 1000
