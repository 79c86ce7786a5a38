"""Which layers of a network may compute in INT8: the big convolutions, found by their place in the graph.

Never quantised are the convolutions that read the network's input, those that make its output, and 1x1
convolutions (the shortcuts): they are sensitive and cost little. Residual additions and instance norms
are no convolutions and stay in floating point as well.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod

import onnx
from onnx import shape_inference, version_converter

from cxredge.contract import Contract
from cxredge.errors import CalibrationError, ModelError

CONVOLUTIONS = ("Conv", "ConvTranspose")
QUANTISERS = ("QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear")
LEAST_OPSET = 19
"""From here QuantizeLinear takes FP16 as well, which the typed INT8 model needs."""
OPSET = 20
"""What older models are converted to; TensorRT 10 parses 9 to 20."""


@dataclass(frozen=True)
class Layer:
    """A convolution that may be quantised.

    Attributes:
        node: name of its node.
        name: of its weights, which tells a reader more.
        source: tensor that it reads and that gets a range.
        output: tensor that it gives.
        macs: multiply-accumulates for one image.
    """

    node: str
    name: str
    source: str
    output: str
    macs: int


def prepare_graph(model: onnx.ModelProto, contract: Contract) -> onnx.ModelProto:
    """A copy of an FP32 model that can be quantised: opset 19 or later, every node with a name of its own.

    Raises:
        CalibrationError: it is not in FP32.
        ModelError: its opset is too old and it cannot be converted.
    """
    quantised = sorted({node.op_type for node in model.graph.node} & set(QUANTISERS))
    half = any(tensor.data_type == onnx.TensorProto.FLOAT16 for tensor in model.graph.initializer)
    if contract.precision != "fp32" or quantised or half:
        found = quantised[0] if quantised else "FP16 weights" if half else f"a contract that says {contract.precision}"
        raise CalibrationError(f"is not an FP32 model (it has {found}); calibrate the FP32 model that it was made from")
    (opset,) = (entry.version for entry in model.opset_import if entry.domain == "")
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if opset < LEAST_OPSET:
        try:
            copy = version_converter.convert_version(model, OPSET)
        except RuntimeError as error:
            raise ModelError(
                f"has opset {opset}, INT8 needs {LEAST_OPSET}, and it cannot be converted: {error}"
            ) from error
    name_nodes(copy.graph)
    return shape_inference.infer_shapes(copy)


def name_nodes(graph: onnx.GraphProto) -> None:
    """Give a name to every node that has none or that of an earlier one."""
    taken: set[str] = set()
    for index, node in enumerate(graph.node):
        if not node.name or node.name in taken:
            node.name = f"{node.op_type}_{index}_{node.output[0]}"
        taken.add(node.name)


def find_layers(model: onnx.ModelProto) -> tuple[Layer, ...]:
    """The quantisable convolutions of a prepared graph, in its order.

    Raises:
        CalibrationError: there are none, or the size of their images is unknown.
    """
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    first, last = set(first_convolutions(model.graph)), set(last_convolutions(model.graph))
    sizes = image_sizes(model.graph)
    layers = tuple(
        Layer(node.name, layer_name(node), node.input[0], node.output[0], macs(node, weights[node.input[1]], sizes))
        for node in model.graph.node
        if node.op_type in CONVOLUTIONS
        and max(weights.get(node.input[1], ())[2:], default=1) > 1
        and node.name not in first | last
    )
    if not layers:
        raise CalibrationError("has no convolution that could be quantised")
    if not all(layer.macs for layer in layers):
        raise CalibrationError("does not tell the size of its images; export it again")
    return layers


def layer_name(node: onnx.NodeProto) -> str:
    """Name of a convolution's weights, without the words that all have in common."""
    return str(node.input[1]).removesuffix(".weight").removeprefix("generator.")


def first_convolutions(graph: onnx.GraphProto) -> Iterator[str]:
    """Names of the convolutions that no other one stands before."""
    weights = {tensor.name for tensor in graph.initializer}
    before = {value.name for value in graph.input} - weights
    for node in graph.node:
        if node.op_type in CONVOLUTIONS:
            if node.input[0] in before:
                yield node.name
        elif all(name in before or name in weights or not name for name in node.input):
            before.update(node.output)


def last_convolutions(graph: onnx.GraphProto) -> Iterator[str]:
    """Names of the convolutions from which a path leads to the output without another one."""
    after = {value.name for value in graph.output}
    for node in reversed(graph.node):
        if any(name in after for name in node.output):
            if node.op_type in CONVOLUTIONS:
                yield node.name
            else:
                after.update(node.input)


def image_sizes(graph: onnx.GraphProto) -> dict[str, int]:
    """Pixels ``H * W`` of the tensors ``(N, C, H, W)`` whose shape is known."""
    sizes = {}
    for value in (*graph.value_info, *graph.input, *graph.output):
        dims = [dim.dim_value for dim in value.type.tensor_type.shape.dim]
        if len(dims) == 4:
            sizes[value.name] = dims[2] * dims[3]
    return sizes


def macs(node: onnx.NodeProto, weight: tuple[int, ...], sizes: dict[str, int]) -> int:
    """Multiply-accumulates of a convolution for one image.

    Every weight is used once for each pixel of the output, or of the input where it is transposed.
    """
    return prod(weight) * sizes.get(node.output[0] if node.op_type == "Conv" else node.input[0], 0)
