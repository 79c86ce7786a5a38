"""Convolutions in phases: what the fold ``up-phases`` makes, and the transposed convolution that it stands for.

ONNX Runtime's convolutions are faster than its transposed convolutions, so models for CPUs enlarge by a 2x2
convolution to four phases ``(N, 4 O, H + 1, W + 1)`` and interleave these: columns, then rows, each by a reshape and a
transposition, then a last reshape and a crop by 1 at each side. OpenVINO and TensorRT are made for transposed
convolutions: what is made for them gets those back, with the same weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TAPS = ((2, 0), (3, 1))
"""Taps of the 4-tap transposed convolution that make the odd samples, which come first, and the even ones."""
INTERLEAVING = ("Reshape", "Transpose", "Reshape", "Transpose", "Reshape")
"""Operators between the convolution and the crop, by the names that ONNX and OpenVINO share."""
CROP = "Slice"
"""The operator of the crop; one for both axes, or one for each."""
COLUMNS, ROWS = [0, 2, 3, 1], [0, 2, 1, 3]
"""How the two transpositions permute their axes."""
CROPPED = {2: (1, -1, 1), 3: (1, -1, 1)}
"""First, last and step of the crop by axis."""


@dataclass(frozen=True)
class Candidate:
    """A convolution and what follows it, as a graph tells of them; ``None`` where it tells nothing.

    Attributes:
        weight: kernel of the convolution.
        bias: of each of its outputs, or ``None``.
        plain: whether its strides and dilations are 1, it has one group and pads by 1 at every side.
        shapes: of the three reshapes.
        permutations: of the two transpositions.
        crop: (first, last, step) by axis.
    """

    weight: NDArray[np.float32]
    bias: NDArray[np.float32] | None
    plain: bool
    shapes: Sequence[list[int] | None]
    permutations: Sequence[list[int] | None]
    crop: Mapping[int, tuple[int, int, int]]

    @property
    def is_in_phases(self) -> bool:
        """Whether this computes what a transposed convolution does."""
        outputs, _, *kernel = self.weight.shape
        if not self.plain or kernel != [2, 2] or outputs % 4 or self.shapes[0] is None or len(self.shapes[0]) != 4:
            return False
        height, width = self.shapes[0][2:]
        bias = np.zeros(outputs) if self.bias is None else self.bias
        return (
            list(self.shapes)
            == [[-1, 2, height, width], [-1, 2, height, 2 * width], [-1, outputs // 4, 2 * height, 2 * width]]
            and list(self.permutations) == [COLUMNS, ROWS]
            and self.crop == CROPPED
            and np.array_equal(bias, np.repeat(bias[::4], 4))
        )


def transposed_weight(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """The kernel ``(I, O, 4, 4)`` of the transposed convolution whose phases have the kernel ``(4 O, I, 2, 2)``."""
    outputs, inputs = weight.shape[0] // 4, weight.shape[1]
    phases = weight.reshape(outputs, 2, 2, inputs, 2, 2)  # row and column of the phase, input, taps
    kernel = phases.transpose(3, 0, 1, 4, 2, 5).reshape(inputs, outputs, 4, 4)
    order = np.argsort(np.ravel(TAPS))
    return np.ascontiguousarray(kernel[:, :, order][:, :, :, order])


def transposed_bias(bias: NDArray[np.float32]) -> NDArray[np.float32]:
    """The bias ``(O,)`` of the transposed convolution whose phases have the bias ``(4 O,)``."""
    return np.ascontiguousarray(bias[::4])
