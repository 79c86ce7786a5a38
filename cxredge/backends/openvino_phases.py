"""Convolutions in phases, as :mod:`cxredge.phases` tells of them, become transposed ones in an OpenVINO graph."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxredge.libraries.open_vino import openvino
from cxredge.phases import CROP, CROPPED, INTERLEAVING, Candidate, transposed_bias, transposed_weight

PLAIN_CONV = {
    "strides": [1, 1],
    "dilations": [1, 1],
    "pads_begin": [1, 1],
    "pads_end": [1, 1],
    "auto_pad": "explicit",
}
"""Attributes of a convolution in phases."""


def merge_phases(graph: openvino.Model) -> int:
    """Put a transposed convolution wherever one was taken apart into phases; the same weights, bit by bit.

    Args:
        graph: changed in place.

    Returns:
        How many there were.
    """
    merged = [merge(node) for node in graph.get_ordered_ops() if node.get_type_name() == "Convolution"]
    if any(merged):
        graph.validate_nodes_and_infer_types()
    return sum(merged)


def merge(conv: openvino.Node) -> bool:
    """Merge the phases that ``conv`` makes; false, and nothing changed, where it makes none."""
    weight, bias, last = constant(conv, 1), None, conv
    add = single_reader(conv)
    if add is not None and add.get_type_name() == "Add":
        last, bias = add, constant(add, 1)
        if bias is None:
            return False
    if weight is None:
        return False
    steps: list[openvino.Node] = []
    for kind in INTERLEAVING:
        last = single_reader(last)
        if last is None or last.get_type_name() != kind:
            return False
        steps.append(last)
    crop: dict[int, tuple[int, int, int]] = {}
    while crop.keys() != CROPPED.keys():
        last = single_reader(last)
        taken = slices(last) if last is not None and last.get_type_name() == CROP else {}
        if not taken or taken.keys() & crop.keys():
            return False
        crop |= taken
    attributes = conv.get_attributes()
    candidate = Candidate(
        weight,
        None if bias is None else bias.ravel(),
        plain=all(attributes[name] == value for name, value in PLAIN_CONV.items()),
        shapes=[numbers(steps[step], 1) for step in (0, 2, 4)],
        permutations=[numbers(steps[step], 1) for step in (1, 3)],
        crop=crop,
    )
    if not candidate.is_in_phases:
        return False
    make = openvino.opset13
    kernel = make.constant(transposed_weight(weight))
    sides = {"strides": [2, 2], "pads_begin": [1, 1], "pads_end": [1, 1]}
    whole = make.convolution_backprop_data(conv.input_value(0), kernel, **sides, name=conv.get_friendly_name())
    if candidate.bias is not None:
        whole = make.add(whole, make.constant(transposed_bias(candidate.bias).reshape(1, -1, 1, 1)))
    last.output(0).replace(whole.output(0))
    return True


def single_reader(node: openvino.Node) -> openvino.Node | None:
    """The node that reads ``node``, if it is one alone; one that asks for its shape does not count."""
    readers = [reader.get_node() for reader in node.output(0).get_target_inputs()]
    readers = [reader for reader in readers if reader.get_type_name() != "ShapeOf"]
    return readers[0] if len(readers) == 1 else None


def slices(node: openvino.Node) -> dict[int, tuple[int, int, int]]:
    """(first, last, step) by axis of a Slice; none where they are not constants."""
    first, last, steps, axes = (numbers(node, index) for index in (1, 2, 3, 4))
    if first is None or last is None or steps is None or axes is None:
        return {}
    return dict(zip(axes, zip(first, last, steps, strict=True), strict=True))


def constant(node: openvino.Node, index: int) -> NDArray[Any] | None:
    """The constant that ``node`` reads as its input ``index``, reshaped or not."""
    source = node.input_value(index).get_node()
    if source.get_type_name() == "Reshape":
        source = source.input_value(0).get_node()
    return np.array(source.get_data()) if source.get_type_name() == "Constant" else None


def numbers(node: openvino.Node, index: int) -> list[int] | None:
    """A list of integers that ``node`` reads as its input ``index``."""
    found = constant(node, index)
    return None if found is None or found.ndim != 1 else found.tolist()
