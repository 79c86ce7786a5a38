"""The processing of the runtime inside the graph: one ONNX file from a raw image to its mask, for any language.

The graph does what :mod:`cxredge.preprocessing` does and what :mod:`cxredge.postprocessing` does but for cleaning, in
operators that ONNX Runtime, its build for browsers and TensorRT's parser know. Resizing is separable: each of the
S results of an axis is a weighted sum of at most K = ceil(n / S) + 1 neighbours out of n, whose weights are computed
in the graph, in integers, hence exactly. A dense S x n matrix would cost as much as the network.
"""

from __future__ import annotations

import onnx
from onnx import compose, parser

from cxredge.errors import ModelError

IMAGE = "image"
MASK, LOGITS = "mask", "logits"
ENDS = {
    IMAGE: "float32 (H, W), H and W at least 32, any values of which the largest is shown white: negate them where it "
    "is shown black (MONOCHROME1), clip them where not all count (padding, a collimated border, a window)",
    MASK: "uint8 (H, W), 1 inside the lungs, else 0; not cleaned",
    LOGITS: "float32 (S, S), one lung logit a pixel of the network's input; NaN where all pixels are equal",
    "left to the caller": "of the mask, keep the two largest 4-connected components and fill their holes",
}
"""What goes in and comes out, in the words of the contract."""
BEFORE, AFTER = "before/", "after/"
"""What the names of the added values begin with, so that they are none of the network's."""
OPSETS = range(18, 21)
"""Operator sets in which the added operators mean the same."""


def add_processing(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` between its pre- and its post-processing.

    Args:
        model: a network ``(N, 1, S, S) -> (N, 1, S, S)`` in any precision, left as it is.

    Returns:
        A checked model without a contract. Input ``image``: ``(H, W)`` float32, the values of the detector or the
        file, of which the largest is shown white. Outputs ``mask``: ``(H, W)`` uint8, 1 inside the lungs, else 0, not
        cleaned; ``logits``: ``(S, S)`` float32.

    Raises:
        ModelError: its operator set is one that the added operators are not written for.
    """
    (network_input,), (network_output,) = model.graph.input, model.graph.output
    size = network_input.type.tensor_type.shape.dim[2].dim_value
    opset = next(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset not in OPSETS:
        raise ModelError(f"is of operator set {opset}, processing is written for {OPSETS[0]} to {OPSETS[-1]}")
    header = f'<ir_version: {model.ir_version}, opset_import: ["" : {opset}]>'
    before = compose.add_prefix(parser.parse_model(header + preprocessing(size)), BEFORE)
    after = compose.add_prefix(parser.parse_model(header + postprocessing(size)), AFTER)
    inside = compose.merge_models(before, bare(model), [(BEFORE + "input", network_input.name)])
    ends = [(network_output.name, AFTER + "logit"), (BEFORE + "size", AFTER + "size")]
    whole = compose.merge_models(inside, after, ends)
    rename_ends(whole.graph)
    whole.producer_name, whole.doc_string = "cxredge", ""
    onnx.checker.check_model(whole, full_check=True)
    return whole


def preprocessing(size: int) -> str:
    """Graph text from the image to the network's input, and the size of the mask as ``Resize`` takes it."""
    return f"""
    preprocessing (float[H, W] image) => (float[1, 1, {size}, {size}] input, int64[4] size)
    {{
        low = ReduceMin <keepdims = 0> (image)
        high = ReduceMax <keepdims = 0> (image)
        offset = Sub (image, low)
        {resized("offset", "rows", size)}
        turned = Transpose <perm = [1, 0]> (rows)
        {resized("turned", "columns", size)}
        resized = Transpose <perm = [1, 0]> (columns)
        two = Constant <value = float {{2}}> ()
        one = Constant <value = float {{1}}> ()
        range = Sub (high, low)
        scale = Div (two, range)
        scaled = Mul (resized, scale)
        normalised = Sub (scaled, one)
        leading = Constant <value = int64[2] {{0, 1}}> ()
        input = Unsqueeze (normalised, leading)
        ones = Constant <value = int64[2] {{1, 1}}> ()
        shape = Shape (image)
        size = Concat <axis = 0> (ones, shape)
    }}
    """


def resized(image: str, result: str, size: int) -> str:
    """Graph text that resizes the first axis of ``image`` ``(n, m)`` to ``size`` S, as ``result`` ``(S, m)``.

    With i the result's row and j the image's, in units of 1/S of a row of the image: the area of row i is
    [i n, (i + 1) n], row j is [j S, (j + 1) S], and the weight of j is the length of what they share, over n. For
    bilinear enlarging, in units of 1/(2S): the middle of row i lies at (2i + 1) n - S, held to [0, 2S (n - 1)], and
    the weight of j is 2S less its distance from 2S j, where that is positive, over 2S.
    """
    own = f"{result}_"
    return f"""
        {own}n = Shape <start = 0, end = 1> ({image})
        {own}zero = Constant <value = int64[1] {{0}}> ()
        {own}one = Constant <value = int64[1] {{1}}> ()
        {own}s = Constant <value = int64[1] {{{size}}}> ()
        {own}s2 = Constant <value = int64[1] {{{2 * size}}}> ()
        {own}i = Constant <value = int64[{size}, 1] {{{", ".join(map(str, range(size)))}}}> ()
        {own}last = Sub ({own}n, {own}one)
        {own}shrinks = Greater ({own}n, {own}s)

        {own}begin = Mul ({own}i, {own}n)
        {own}end = Add ({own}begin, {own}n)
        {own}sum = Add ({own}begin, {own}end)
        {own}free_middle = Sub ({own}sum, {own}s)
        {own}low_middle = Max ({own}free_middle, {own}zero)
        {own}last_middle = Mul ({own}last, {own}s2)
        {own}middle = Min ({own}low_middle, {own}last_middle)

        {own}area_first = Div ({own}begin, {own}s)
        {own}linear_first = Div ({own}middle, {own}s2)
        {own}first = Where ({own}shrinks, {own}area_first, {own}linear_first)
        {own}steps = Div ({own}last, {own}s)
        {own}last_tap = Add ({own}steps, {own}one)
        {own}taps = Add ({own}last_tap, {own}one)
        {own}taps0 = Squeeze ({own}taps)
        {own}zero0 = Squeeze ({own}zero)
        {own}one0 = Squeeze ({own}one)
        {own}tap = Range ({own}zero0, {own}taps0, {own}one0)
        {own}j = Add ({own}first, {own}tap)

        {own}j_begin = Mul ({own}j, {own}s)
        {own}j_end = Add ({own}j_begin, {own}s)
        {own}shared_begin = Max ({own}begin, {own}j_begin)
        {own}shared_end = Min ({own}end, {own}j_end)
        {own}shared = Sub ({own}shared_end, {own}shared_begin)
        {own}j_middle = Mul ({own}j, {own}s2)
        {own}difference = Sub ({own}middle, {own}j_middle)
        {own}distance = Abs ({own}difference)
        {own}near = Sub ({own}s2, {own}distance)
        {own}signed = Where ({own}shrinks, {own}shared, {own}near)
        {own}parts = Max ({own}signed, {own}zero)
        {own}whole = Where ({own}shrinks, {own}n, {own}s2)
        {own}float_parts = Cast <to = 1> ({own}parts)
        {own}float_whole = Cast <to = 1> ({own}whole)
        {own}weights = Div ({own}float_parts, {own}float_whole)

        {own}inside = Min ({own}j, {own}last)
        {own}neighbours = Gather <axis = 0> ({image}, {own}inside)
        {own}weight_rows = Unsqueeze ({own}weights, {own}one)
        {own}products = MatMul ({own}weight_rows, {own}neighbours)
        {result} = Squeeze ({own}products, {own}one)
    """


def postprocessing(size: int) -> str:
    """Graph text from the network's logit to logits and mask."""
    return f"""
    postprocessing (float[1, 1, {size}, {size}] logit, int64[4] size)
        => (uint8[H, W] mask, float[{size}, {size}] logits)
    {{
        leading = Constant <value = int64[2] {{0, 1}}> ()
        logits = Squeeze (logit, leading)
        enlarged = Resize <mode = "linear", coordinate_transformation_mode = "half_pixel"> (logit, , , size)
        plane = Squeeze (enlarged, leading)
        zero = Constant <value = float {{0}}> ()
        lung = Greater (plane, zero)
        number = Cast <to = 1> (lung)
        mask = Cast <to = 2> (number)
    }}
    """


def bare(model: onnx.ModelProto) -> onnx.ModelProto:
    """A copy of ``model`` without its contract, for a batch of one."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.metadata_props[:]
    for end in (*copy.graph.input, *copy.graph.output):
        end.type.tensor_type.shape.dim[0].dim_value = 1
    del copy.graph.value_info[:]
    return copy


def rename_ends(graph: onnx.GraphProto) -> None:
    """Give input and outputs of the whole graph their public names."""
    names = {BEFORE + IMAGE: IMAGE, AFTER + MASK: MASK, AFTER + LOGITS: LOGITS}
    for node in graph.node:
        for ends in (node.input, node.output):
            ends[:] = [names.get(name, name) for name in ends]
    for end in (*graph.input, *graph.output):
        end.name = names.get(end.name, end.name)
