"""Convolutions in phases, as :mod:`cxredge.phases` tells of them, become transposed ones in an OpenVINO graph."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from cxredge.libraries.open_vino import openvino
from cxredge.phases import COLUMNS, INTERLEAVING, ROWS, transposed_weight

CHAIN = (*INTERLEAVING, "Slice")
CROP = ([1, 1], [-1, -1], [1, 1], [2, 3])
"""Starts, ends, steps and axes of the crop."""


def merge_phases(graph: openvino.Model) -> int:
    """Put a transposed convolution wherever one was taken apart into phases; the same weights, bit by bit.

    Args:
        graph: changed in place.

    Returns:
        How many there were.
    """
    merged = [merge(node) for node in graph.get_ordered_ops() if node.get_type_name() == "Convolution"]
    graph.validate_nodes_and_infer_types()
    return sum(merged)


def merge(conv: openvino.Node) -> bool:
    """Merge the phases that ``conv`` makes; false, and nothing changed, where it makes none."""
    weight = constant(conv, 1)
    if weight is None or weight.shape[2:] != (2, 2) or conv.get_attributes()["pads_begin"] != [1, 1]:
        return False
    last, bias = conv, None
    add = single_reader(conv)
    if add is not None and add.get_type_name() == "Add":
        last, bias = add, constant(add, 1)
        if bias is None:
            return False
    steps: list[openvino.Node] = []
    for kind in CHAIN:
        step = single_reader(last)
        if step is None or step.get_type_name() != kind:
            return False
        steps.append(step)
        last = step
    permuted = [values(steps[1], 1), values(steps[3], 1)]
    crop = [values(steps[5], index) for index in (1, 2, 3, 4)]
    channels = (values(steps[4], 1) or [0, 0])[1]
    if permuted != [list(COLUMNS), list(ROWS)] or crop != list(CROP) or 4 * channels != weight.shape[0]:
        return False
    make = openvino.opset13
    kernel = make.constant(transposed_weight(weight))
    whole = make.convolution_backprop_data(
        conv.input_value(0), kernel, [2, 2], pads_begin=[1, 1], pads_end=[1, 1], name=conv.get_friendly_name()
    )
    if bias is not None:
        whole = make.add(whole, make.constant(np.ascontiguousarray(bias.reshape(1, -1, 1, 1)[:, ::4])))
    last.output(0).replace(whole.output(0))
    return True


def single_reader(node: openvino.Node) -> openvino.Node | None:
    """The node that reads ``node``, if it is one alone; one that asks for its shape does not count."""
    readers = [reader.get_node() for reader in node.output(0).get_target_inputs()]
    readers = [reader for reader in readers if reader.get_type_name() != "ShapeOf"]
    return readers[0] if len(readers) == 1 else None


def constant(node: openvino.Node, index: int) -> NDArray[np.float32] | None:
    """The constant that ``node`` reads as its input ``index``, reshaped or not."""
    source = node.input_value(index).get_node()
    if source.get_type_name() == "Reshape":
        source = source.input_value(0).get_node()
    return np.array(source.get_data()) if source.get_type_name() == "Constant" else None


def values(node: openvino.Node, index: int) -> list[int] | None:
    """A list of integers that ``node`` reads as its input ``index``."""
    found = constant(node, index)
    return None if found is None else found.tolist()
