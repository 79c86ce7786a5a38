"""From an FP32 graph and the ranges of its tensors to explicit Q/DQ, as NVIDIA's parser takes it.

Symmetric INT8 with one scale for each tensor and one for each output channel of the weights. Biases stay
in floating point and outputs are not quantised: the instance norms behind them need the resolution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationMethod, QuantType
from onnxruntime.quantization.calibrate import TensorData, TensorsData
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from cxredge_calibration.layers import CONVOLUTIONS, Layer

OPTIONS = {
    "ActivationSymmetric": True,
    "WeightSymmetric": True,
    "QuantizeBias": False,
    "AddQDQPairToWeight": True,
    "OpTypesToExcludeOutputQuantization": list(CONVOLUTIONS),
}
"""Of ONNX Runtime's quantiser; TensorRT rejects quantised biases and wants pairs at the weights too."""


def quantise(
    model: onnx.ModelProto, layers: Sequence[Layer], ranges: Mapping[str, tuple[float, float]]
) -> onnx.ModelProto:
    """A copy of ``model`` in which ``layers`` compute in INT8; sorted and checked.

    Args:
        model: a prepared FP32 graph; left as it is.
        layers: what to quantise; without any, the copy is the model.
        ranges: (lowest, highest) value of each layer's source.
    """
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    if not layers:
        return copy
    quantizer = QDQQuantizer(
        copy,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=QuantType.QInt8,
        tensors_range=tensors_data({layer.source: ranges[layer.source] for layer in layers}),
        nodes_to_quantize=[layer.node for layer in layers],
        nodes_to_exclude=[],
        op_types_to_quantize=list(CONVOLUTIONS),
        extra_options=OPTIONS,
    )
    quantizer.quantize_model()
    quantizer.model.topological_sort()
    quantised: onnx.ModelProto = quantizer.model.model
    del quantised.metadata_props[:]  # ONNX Runtime leaves notes of its own
    quantised.metadata_props.extend(model.metadata_props)
    onnx.checker.check_model(quantised, full_check=True)
    return quantised


def tensors_data(ranges: Mapping[str, tuple[float, float]]) -> TensorsData:
    """``ranges`` as ONNX Runtime's quantiser takes them."""
    data = {name: TensorData(lowest=np.float32(low), highest=np.float32(high)) for name, (low, high) in ranges.items()}
    return TensorsData(CalibrationMethod.MinMax, data)
