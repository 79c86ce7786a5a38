"""INT8 calibration on chest radiographs, and the gate that an INT8 model must pass."""

import cxredge.libraries.onnx_runtime  # noqa: F401 (before any module here imports ONNX Runtime)
