"""Convolutions in phases: what the fold ``up-phases`` makes, and the transposed convolution that it stands for.

ONNX Runtime's convolutions are faster than its transposed convolutions, so models for CPUs enlarge by a 2x2
convolution to four phases ``(N, 4 O, H + 1, W + 1)`` and interleave these. OpenVINO and TensorRT are made for
transposed convolutions: what is made for them gets those back, with the same weights.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

TAPS = ((2, 0), (3, 1))
"""Taps of the 4-tap transposed convolution that make the odd samples, which come first, and the even ones."""
INTERLEAVING = ("Reshape", "Transpose", "Reshape", "Transpose", "Reshape")
"""Operators of the interleaving, by the names that ONNX and OpenVINO share; a crop by 1 at each side ends it."""
COLUMNS, ROWS = (0, 2, 3, 1), (0, 2, 1, 3)
"""How the two transpositions permute their axes."""


def transposed_weight(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """The kernel ``(I, O, 4, 4)`` of the transposed convolution whose phases have the kernel ``(4 O, I, 2, 2)``."""
    outputs, inputs = weight.shape[0] // 4, weight.shape[1]
    phases = weight.reshape(outputs, 2, 2, inputs, 2, 2)  # row and column of the phase, input, taps
    kernel = phases.transpose(3, 0, 1, 4, 2, 5).reshape(inputs, outputs, 4, 4)
    order = np.argsort(np.ravel(TAPS))
    return np.ascontiguousarray(kernel[:, :, order][:, :, :, order])
