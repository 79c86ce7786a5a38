"""From a training checkpoint to a folded ONNX model that carries its contract."""

import cxredge.libraries.onnx_runtime  # noqa: F401 (before any module here imports ONNX Runtime)
