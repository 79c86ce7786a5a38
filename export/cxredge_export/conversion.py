"""A folded network as an ONNX graph: converted, simplified, checked."""

from __future__ import annotations

import logging
import warnings
from importlib.util import find_spec

import onnx
import torch
from torch import nn

from cxredge.errors import ModelError

OPSET = 20
"""ONNX operator set; TensorRT 10 parses up to 20."""
INPUT = "radiograph"
OUTPUT = "lung_logit"


def to_onnx(network: nn.Module, input_size: int) -> onnx.ModelProto:
    """Convert a network ``(N, 1, S, S) -> (N, 1, S, S)`` with a dynamic batch N; simplified and checked."""
    example = torch.zeros(2, 1, input_size, input_size)
    batch = torch.export.Dim("batch", min=1)
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own deprecations
        program = torch.onnx.export(
            network.eval(),
            (example,),
            dynamo=True,
            opset_version=OPSET,
            input_names=[INPUT],
            output_names=[OUTPUT],
            dynamic_shapes=({0: batch},),
            verbose=False,
        )
    assert program is not None
    model = simplify(program.model_proto)
    name_convs(model.graph)
    onnx.checker.check_model(model, full_check=True)
    return model


def simplify(model: onnx.ModelProto) -> onnx.ModelProto:
    """``model`` after onnxsim, and without the exporter's notes on source files.

    onnxsim has no wheel for Python 3.10: there the exporter's own optimiser has to do.
    """
    if find_spec("onnxsim") is not None:
        import onnxsim

        model, same = onnxsim.simplify(model)
        if not same:
            raise ModelError("onnxsim changed the network's output")
    model.ClearField("metadata_props")
    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        value.ClearField("metadata_props")
    return model


def name_convs(graph: onnx.GraphProto) -> None:
    """Name each conv after its weight, such as ``encoder.0.residual.conv1``, so that reports can be read."""
    for node in graph.node:
        if node.op_type in ("Conv", "ConvTranspose"):
            node.name = node.input[1].removesuffix(".weight")
