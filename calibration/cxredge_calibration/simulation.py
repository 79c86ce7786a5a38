"""A Q/DQ model as the GPU will compute it, on a CPU: every QuantizeLinear and DequantizeLinear is carried out.

ONNX Runtime would fuse them into integer kernels, whose sums saturate on CPUs without VNNI (relative error
of the logits 0.52 instead of 0.145 on AVX2); ``session.disable_quant_qdq`` stops it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from cxredge.backends.onnxruntime import session_options


def open_session(model: onnx.ModelProto, threads: int) -> onnxruntime.InferenceSession:
    """A session of ``model`` on the CPU that rounds where the model says so and nowhere else."""
    options = session_options(threads)
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def run(session: onnxruntime.InferenceSession, pixels: NDArray[np.float32]) -> list[NDArray[np.float32]]:
    """All outputs, the logits ``(1, 1, S, S)`` first, for one network input ``(S, S)``."""
    outputs: list[NDArray[np.float32]] = session.run(None, {session.get_inputs()[0].name: pixels[None, None]})
    return outputs


def with_outputs(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    """A copy of ``model`` that gives ``tensors`` too, after its own output."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    copy.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in tensors)
    return copy
