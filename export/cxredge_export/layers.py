"""In which precision each layer of a model computes, read from its graph."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import onnx

from cxredge_calibration.model_file import read_model

PASSING = ("Cast", "Constant", "DequantizeLinear", "Identity", "QuantizeLinear")
"""Operators that compute nothing of their own."""
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators that a reader knows by their weights."""
PRECISIONS = {onnx.TensorProto.FLOAT: "fp32", onnx.TensorProto.FLOAT16: "fp16"}


@dataclass(frozen=True)
class LayerPrecision:
    """One operator of a graph.

    Attributes:
        name: of a convolution's weights, else of the node.
        operator: of ONNX.
        precision: ``int8`` where it computes on quantised tensors, else the type of what it gives.
        parameters: numbers that it brings along.
    """

    name: str
    operator: str
    precision: str
    parameters: int

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def read_layers(path: Path) -> tuple[LayerPrecision, ...]:
    """The layers of a model file, in the order of its graph.

    Raises:
        ModelError: missing, not an ONNX model, or without a valid contract.
    """
    return tuple(layer_precisions(read_model(path, with_processing=True)[0]))


def layer_precisions(model: onnx.ModelProto) -> Iterator[LayerPrecision]:
    """The layers of ``model``, in the order of its graph."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    types = {value.name: value.type.tensor_type.elem_type for value in (*graph.value_info, *graph.output)}
    sizes = {tensor.name: prod(tensor.dims) for tensor in graph.initializer}
    source = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type in PASSING:
            continue
        weights = [origin(name, source) for name in node.input]
        owned = [name for name in weights if name in sizes]
        yield LayerPrecision(
            owned[0] if owned and node.op_type in WEIGHTED else node.name or node.output[0],
            node.op_type,
            "int8" if is_quantised(node, source) else PRECISIONS.get(types.get(node.output[0], 0), "other"),
            sum(sizes[name] for name in owned),
        )


def is_quantised(node: onnx.NodeProto, source: dict[str, onnx.NodeProto]) -> bool:
    """Whether the first inputs of ``node``, data and weights, all come out of a DequantizeLinear."""
    made_by = [source[name].op_type if name in source else "" for name in node.input[:2]]
    return bool(made_by) and set(made_by) == {"DequantizeLinear"}


def origin(name: str, source: dict[str, onnx.NodeProto]) -> str:
    """Name of the tensor that a chain of casts and quantisations begins with."""
    while name in source and source[name].op_type in PASSING and source[name].input:
        name = source[name].input[0]
    return name
