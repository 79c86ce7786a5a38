"""NVIDIA's compiler takes the folded models, strongly typed and with a dynamic batch, on a machine without a GPU."""

from __future__ import annotations

import onnx
import pytest

from cxredge_export.precision import to_fp16

trt = pytest.importorskip("tensorrt_rtx", reason="needs the extra 'rtx'")


def compiled(model: onnx.ModelProto) -> tuple[set[str], bytes]:
    """Types of the instance norms' inputs, and the engine for batches of 1 to 8."""
    logger = trt.Logger(trt.Logger.ERROR)
    builder = trt.Builder(logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, logger)
    parsed = parser.parse(model.SerializeToString())
    assert parsed, [str(parser.get_error(i)) for i in range(parser.num_errors)]
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    profile.set_shape("radiograph", (1, 1, 32, 32), (4, 1, 32, 32), (8, 1, 32, 32))
    config.add_optimization_profile(profile)
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    norms = {layer.get_input(0).dtype.name for layer in layers if "NORMALIZATION" in layer.type.name}
    plan = builder.build_serialized_network(network, config)
    assert plan is not None
    return norms, bytes(plan)


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_folded_models_compile(converted: onnx.ModelProto, precision: str) -> None:
    norms, plan = compiled(converted if precision == "fp32" else to_fp16(converted))
    assert norms == {"FLOAT"}
    assert len(plan) > 1000
