"""Arithmetic and traffic of every layer of a model, for the roofline of :mod:`cxredge.benchmark.roofline`.

Layers are counted as a good compiler would run them. Pointwise layers (activations, scaling, casts, Q/DQ),
sums, pooling and enlargement run inside a layer beside them and cost nothing; convolutions in phases count as
the transposed ones that a GPU gets; an instance norm reads its
input twice, for the statistics and to apply them, and writes once; the rest reads its inputs and
writes its outputs once. Only convolutions count as arithmetic. A tensor that is stored between two layers
takes the smallest type on its way: one byte where it is quantised, two where it is cast to FP16. What
is free and how often a norm passes was chosen among some hundred such rules by the design's estimates for
the folded networks, so agreeing with those is no proof of either. Works without torch.
"""

from __future__ import annotations

from collections import Counter
from math import prod

import onnx
from onnx import NodeProto, TensorProto, helper, shape_inference

from cxredge.benchmark.roofline import LayerCost
from cxredge.errors import ModelError
from cxredge_calibration.phases import merge_phases

# fmt: off
POINTWISE = {"LeakyRelu", "Relu", "Mul", "Div", "Sub", "Cast", "QuantizeLinear", "DequantizeLinear", "Identity",
             "Constant", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Clip"}
# fmt: on
FUSED = POINTWISE | {"Add", "AveragePool", "Resize"}
CONVOLUTIONS = {"Conv", "ConvTranspose"}
NORM = "InstanceNormalization"


class TensorSizes:
    """Shapes, types and neighbours of the tensors of a graph.

    Attributes:
        elements: number of each tensor's elements.
        types: ONNX element type of each tensor.
        shapes: shape of each tensor.
        computed: tensors that depend on the network's input, not on constants only.
    """

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.elements: dict[str, int] = {}
        self.types: dict[str, int] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        for constant in graph.initializer:
            self._add(constant.name, constant.data_type, tuple(constant.dims))
        for value in (*graph.input, *graph.output, *graph.value_info):
            tensor = value.type.tensor_type
            if tensor.HasField("shape") and all(dim.HasField("dim_value") for dim in tensor.shape.dim):
                self._add(value.name, tensor.elem_type, tuple(dim.dim_value for dim in tensor.shape.dim))
        constants = {constant.name for constant in graph.initializer}
        self.computed = {value.name for value in graph.input} - constants
        for node in graph.node:
            if self.computed & set(node.input):
                self.computed |= set(node.output)
        self.producers = {name: node for node in graph.node for name in node.output}
        self.uses = Counter(name for node in graph.node for name in node.input)
        self.consumers = {name: node for node in graph.node for name in node.input}

    def _add(self, name: str, element_type: int, shape: tuple[int, ...]) -> None:
        self.elements[name], self.types[name], self.shapes[name] = prod(shape), element_type, shape

    def read(self, name: str) -> int:
        """Bytes to read tensor ``name``: of the smallest type since the layer that wrote it."""
        sizes = [self._item_size(name)]
        source = name
        while (node := self.producers.get(source)) is not None and node.op_type in POINTWISE and node.input:
            source = node.input[0]
            sizes.append(self._item_size(source))
        return self.elements[name] * min(sizes)

    def written(self, name: str) -> int:
        """Bytes to write tensor ``name``: of the smallest type until the layer that reads it."""
        sizes = [self._item_size(name)]
        target = name
        while self.uses[target] == 1 and (node := self.consumers[target]).op_type in POINTWISE:
            target = node.output[0]
            sizes.append(self._item_size(target))
        return self.elements[name] * min(sizes)

    def is_quantised(self, name: str) -> bool:
        """Whether tensor ``name`` was quantised on its way."""
        node = self.producers.get(name)
        return node is not None and node.op_type == "DequantizeLinear"

    def _item_size(self, name: str) -> int:
        return helper.tensor_dtype_to_np_dtype(self.types[name]).itemsize


def layer_costs(model: onnx.ModelProto, batch: int = 1) -> list[LayerCost]:
    """Costs of the layers that take time of their own.

    Args:
        model: with one input ``(N, 1, S, S)``; left as it is.
        batch: N.

    Raises:
        ModelError: the shape of a tensor cannot be inferred.
    """
    graph = with_shapes(merge_phases(model), batch)
    sizes = TensorSizes(graph)
    try:
        return [cost for node in graph.node if (cost := node_cost(node, sizes)) is not None]
    except KeyError as error:
        raise ModelError(f"the shape of tensor {error} cannot be inferred") from error


def with_shapes(model: onnx.ModelProto, batch: int) -> onnx.GraphProto:
    """The graph for a batch of ``batch``, with the shapes of all tensors."""
    fixed = onnx.ModelProto()
    fixed.CopyFrom(model)
    fixed.graph.ClearField("value_info")
    for value in (*fixed.graph.input, *fixed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    return shape_inference.infer_shapes(fixed, data_prop=True).graph


def node_cost(node: NodeProto, sizes: TensorSizes) -> LayerCost | None:
    """Cost of one node; ``None`` where it runs inside another layer or on constants only."""
    inputs = [name for name in node.input if name]
    tensors = [name for name in inputs if name in sizes.computed]
    if not tensors or node.op_type in FUSED:
        return None
    read, written = sum(map(sizes.read, inputs)), sum(map(sizes.written, node.output))
    if node.op_type in CONVOLUTIONS:
        return LayerCost(node.name, node.op_type, flops(node, sizes), read + written, precision(node, sizes))
    if node.op_type == NORM:
        read += sizes.read(node.input[0])
    return LayerCost(node.name, node.op_type, 0, read + written, precision(node, sizes))


def flops(node: NodeProto, sizes: TensorSizes) -> float:
    """Multiplications and additions of a convolution."""
    weight = sizes.shapes[
        node.input[1]
    ]  # Conv: (out, in / groups, *kernel); ConvTranspose: (in, out / groups, *kernel)
    positions = node.output[0] if node.op_type == "Conv" else node.input[0]
    return 2.0 * sizes.elements[positions] * prod(weight[1:])


def precision(node: NodeProto, sizes: TensorSizes) -> str:
    """Precision of a node's arithmetic."""
    if node.op_type in CONVOLUTIONS and sizes.is_quantised(node.input[0]):
        return "int8"
    return "fp16" if sizes.types[node.output[0]] == TensorProto.FLOAT16 else "fp32"
