"""Convolutions in phases, as :mod:`cxredge.phases` tells of them, become transposed ones in an ONNX graph."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import NodeProto, helper, numpy_helper

from cxredge.contract import CONTRACT_KEY
from cxredge.phases import CROP, CROPPED, INTERLEAVING, Candidate, transposed_bias, transposed_weight
from cxredge_calibration.model_file import add_contract, read_contract

FOLD, MERGED_FOLD = "up-phases", "up-conv"
"""Names in the contract."""
UNSAID = {"strides": [1, 1], "dilations": [1, 1], "group": 1, "auto_pad": b"NOTSET"}
"""Attributes of a convolution that does not say others."""
PLAIN_CONV = UNSAID | {"pads": [1] * 4}
"""Attributes of a convolution in phases."""


@dataclass(frozen=True)
class Graph:
    """A graph as it is asked here.

    Attributes:
        constants: tensors by name.
        readers: the node that reads a tensor, for each tensor that one node alone reads and that is no output.
    """

    constants: Mapping[str, onnx.TensorProto]
    readers: Mapping[str, NodeProto]

    @classmethod
    def of(cls, graph: onnx.GraphProto) -> Graph:
        """What ``graph`` holds."""
        uses = Counter(name for node in graph.node for name in node.input) + Counter(v.name for v in graph.output)
        readers = {name: node for node in graph.node for name in node.input if uses[name] == 1}
        return cls({tensor.name: tensor for tensor in graph.initializer}, readers)

    def array(self, node: NodeProto, index: int) -> NDArray[Any] | None:
        """The constant that ``node`` reads as its input ``index``."""
        name = node.input[index] if index < len(node.input) else ""
        return numpy_helper.to_array(self.constants[name]) if name in self.constants else None

    def numbers(self, node: NodeProto, index: int) -> list[int] | None:
        """A list of integers that ``node`` reads as its input ``index``."""
        found = self.array(node, index)
        return None if found is None or found.ndim != 1 else found.tolist()


def merge_phases(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with a transposed convolution wherever one was taken apart into phases; the same weights, bit by bit.

    Args:
        model: FP32, left as it is. Quantised convolutions stay as they are.

    Returns:
        The model itself where it has no phases; a copy otherwise, whose contract, if any, names the other fold.
    """
    graph = Graph.of(model.graph)
    chains = {node.output[0]: chain for node in model.graph.node if (chain := in_phases(node, graph))}
    if not chains:
        return model
    replaced = [node for chain in chains.values() for node in chain]
    merged = onnx.ModelProto()
    merged.CopyFrom(model)
    del merged.graph.node[:]
    for node in model.graph.node:
        if node.output[0] in chains:
            merged.graph.node.append(transposed(chains[node.output[0]], graph, merged.graph))
        elif node not in replaced:
            merged.graph.node.append(node)
    leave_out_rest(merged.graph, replaced)
    if any(prop.key == CONTRACT_KEY for prop in merged.metadata_props):
        contract = read_contract(merged)
        names = [MERGED_FOLD if name == FOLD else name for name in contract.folds]
        add_contract(merged, replace(contract, folds=tuple(dict.fromkeys(names))))
    onnx.checker.check_model(merged, full_check=True)
    return merged


def in_phases(conv: NodeProto, graph: Graph) -> list[NodeProto]:
    """``conv`` and the nodes that interleave what it gives; none where that is not what they do."""
    weight = graph.array(conv, 1) if conv.op_type == "Conv" else None
    bias = graph.array(conv, 2)
    has_bias = any(conv.input[2:])
    if weight is None or (bias is None and has_bias):
        return []
    chain = [conv]
    for kind in INTERLEAVING:
        node = graph.readers.get(chain[-1].output[0])
        if node is None or node.op_type != kind:
            return []
        chain.append(node)
    crop: dict[int, tuple[int, int, int]] = {}
    while crop.keys() != CROPPED.keys():
        node = graph.readers.get(chain[-1].output[0])
        taken = slices(node, graph) if node is not None and node.op_type == CROP else {}
        if node is None or not taken or taken.keys() & crop.keys():
            return []
        crop |= taken
        chain.append(node)
    attributes = UNSAID | {entry.name: helper.get_attribute_value(entry) for entry in conv.attribute}
    candidate = Candidate(
        weight,
        bias,
        plain=all(attributes.get(name) == value for name, value in PLAIN_CONV.items()),
        shapes=[graph.numbers(chain[step], 1) for step in (1, 3, 5)],
        permutations=[permutation(chain[step]) for step in (2, 4)],
        crop=crop,
    )
    return chain if candidate.is_in_phases else []


def slices(node: NodeProto, graph: Graph) -> dict[int, tuple[int, int, int]]:
    """(first, last, step) by axis of a Slice; none where they are not constants."""
    first, last, axes = (graph.numbers(node, index) for index in (1, 2, 3))
    if first is None or last is None or axes is None:
        return {}
    steps = graph.numbers(node, 4) if len(node.input) > 4 else [1] * len(axes)
    return {} if steps is None else dict(zip(axes, zip(first, last, steps, strict=True), strict=True))


def permutation(node: NodeProto) -> list[int] | None:
    """How a Transpose permutes its axes; ``None`` where it only turns their order round."""
    return next((list(entry.ints) for entry in node.attribute if entry.name == "perm"), None)


def transposed(chain: list[NodeProto], graph: Graph, target: onnx.GraphProto) -> NodeProto:
    """The transposed convolution in place of ``chain``, its weights added to ``target``."""
    conv, output = chain[0], chain[-1].output[0]
    parts = {"weight": graph.array(conv, 1), "bias": graph.array(conv, 2)}
    inputs = [conv.input[0]]
    for index, (kind, part) in enumerate(parts.items(), 1):
        if part is None:
            continue
        name = conv.input[index].replace(".phases.", ".")
        if name in {tensor.name for tensor in target.initializer}:
            name = f"{output}.{kind}"
        array = transposed_weight(part) if kind == "weight" else transposed_bias(part)
        target.initializer.append(numpy_helper.from_array(array, name))
        inputs.append(name)
    name = conv.name.removesuffix(".phases")
    return helper.make_node("ConvTranspose", inputs, [output], name, kernel_shape=[4, 4], pads=[1] * 4, strides=[2, 2])


def leave_out_rest(graph: onnx.GraphProto, replaced: list[NodeProto]) -> None:
    """Remove the constants that only ``replaced`` nodes read, and what is said of tensors that only these made."""
    read = {name for node in graph.node for name in node.input}
    made = {name for node in graph.node for name in node.output}
    for entries, rest in (
        (graph.initializer, {name for node in replaced for name in node.input} - read),
        (graph.value_info, {name for node in replaced for name in node.output} - made),
    ):
        left = [entry for entry in entries if entry.name not in rest]
        del entries[:]
        entries.extend(left)
