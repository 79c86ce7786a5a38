"""From a training checkpoint to a folded ONNX model that carries its contract."""
