"""Convolutions in phases, as :mod:`cxredge.phases` tells of them, become transposed ones in an ONNX graph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import onnx
from onnx import NodeProto, helper, numpy_helper

from cxredge.contract import CONTRACT_KEY
from cxredge.phases import COLUMNS, INTERLEAVING, ROWS, transposed_weight
from cxredge_calibration.model_file import add_contract, read_contract

CHAIN = (*INTERLEAVING, "Slice")
CROP = ([1, 1], [-1, -1], [2, 3])
"""Starts, ends and axes of the crop."""
FOLD, MERGED_FOLD = "up-phases", "up-conv"
"""Names in the contract."""


def merge_phases(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` with a transposed convolution wherever one was taken apart into phases; the same weights, bit by bit.

    Args:
        model: FP32, left as it is. Quantised convolutions stay as they are.

    Returns:
        The model itself where it has no phases; a copy otherwise, whose contract, if any, names the other fold.
    """
    weights = {tensor.name: tensor for tensor in model.graph.initializer}
    readers = single_readers(model.graph)
    chains = {node.output[0]: chain for node in model.graph.node if (chain := interleaving(node, readers, weights))}
    if not chains:
        return model
    merged = onnx.ModelProto()
    merged.CopyFrom(model)
    gone = {name for chain in chains.values() for node in chain for name in node.output}
    del merged.graph.node[:]
    for node in model.graph.node:
        if node.output[0] in chains:
            merged.graph.node.append(transposed(node, chains[node.output[0]][-1].output[0], merged.graph))
        elif node.output[0] not in gone:
            merged.graph.node.append(node)
    leave_out_unused(merged.graph)
    if any(prop.key == CONTRACT_KEY for prop in merged.metadata_props):
        contract = read_contract(merged)
        names = [MERGED_FOLD if name == FOLD else name for name in contract.folds]
        add_contract(merged, replace(contract, folds=tuple(dict.fromkeys(names))))
    onnx.checker.check_model(merged, full_check=True)
    return merged


def single_readers(graph: onnx.GraphProto) -> dict[str, NodeProto]:
    """The node that reads a tensor, for each tensor that one node alone reads."""
    readers: dict[str, list[NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    return {name: nodes[0] for name, nodes in readers.items() if len(nodes) == 1}


def interleaving(
    conv: NodeProto, readers: Mapping[str, NodeProto], weights: Mapping[str, onnx.TensorProto]
) -> list[NodeProto]:
    """The nodes that interleave what ``conv`` gives; none where that is not what they do."""
    weight = weights.get(conv.input[1]) if conv.op_type == "Conv" else None
    if weight is None or list(weight.dims[2:]) != [2, 2] or attribute(conv, "pads") != [1] * 4:
        return []
    chain: list[NodeProto] = []
    for kind in CHAIN:
        node = readers.get((chain or [conv])[-1].output[0])
        if node is None or node.op_type != kind:
            return []
        chain.append(node)
    permuted = [attribute(chain[1], "perm"), attribute(chain[3], "perm")]
    crop = [constant(name, weights) for name in chain[5].input[1:4]]
    channels = (constant(chain[4].input[1], weights) or [0, 0])[1]
    fits = permuted == [list(COLUMNS), list(ROWS)] and crop == list(CROP) and 4 * channels == weight.dims[0]
    return chain if fits else []


def attribute(node: NodeProto, name: str) -> list[int] | None:
    """A list of integers that ``node`` carries under ``name``."""
    return next((list(entry.ints) for entry in node.attribute if entry.name == name), None)


def constant(name: str, weights: Mapping[str, onnx.TensorProto]) -> list[int] | None:
    """A small constant by its name."""
    return numpy_helper.to_array(weights[name]).tolist() if name in weights else None


def transposed(conv: NodeProto, output: str, graph: onnx.GraphProto) -> NodeProto:
    """The transposed convolution in place of ``conv``, its weights added to ``graph``."""
    weights = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    parts = [transposed_weight(weights[conv.input[1]]), *(weights[name][::4] for name in conv.input[2:])]
    names = [name.replace(".phases.", ".") for name in conv.input[1:]]
    names = [f"{name}.transposed" if name in weights else name for name in names]
    graph.initializer.extend(
        numpy_helper.from_array(np.ascontiguousarray(part), name) for part, name in zip(parts, names, strict=True)
    )
    name = conv.name.removesuffix(".phases")
    inputs = [conv.input[0], *names]
    return helper.make_node("ConvTranspose", inputs, [output], name, kernel_shape=[4, 4], pads=[1] * 4, strides=[2, 2])


def leave_out_unused(graph: onnx.GraphProto) -> None:
    """Remove constants that no node reads, and what is said of tensors that there are no more."""
    read = {name for node in graph.node for name in node.input}
    made = {name for node in graph.node for name in node.output}
    for entries, kept in ((graph.initializer, read), (graph.value_info, made)):
        left = [entry for entry in entries if entry.name in kept]
        del entries[:]
        entries.extend(left)
