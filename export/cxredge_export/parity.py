"""Parity: a converted model against what it was made from, on real or made radiographs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from cxredge.errors import ParityError
from cxredge.pipeline import available_cores
from cxredge.preprocessing import network_input
from cxredge.radiograph import Radiograph
from cxredge_calibration.simulation import open_session

Reference: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""From a network input ``(1, 1, S, S)`` to the lung logit ``(1, 1, S, S)``."""


@dataclass(frozen=True)
class Tolerance:
    """How far a model may be from what it was made from.

    Attributes:
        difference: largest absolute difference of a logit; logits are of the order of 10.
        flipped_share: largest share of mask pixels that may differ.
    """

    difference: float
    flipped_share: float


EXACT = Tolerance(difference=1e-3, flipped_share=1e-6)
"""Rounding of FP32: the pixels that may flip are those whose logit is 0 but for it."""
HALF = Tolerance(difference=1.0, flipped_share=1e-3)
"""Rounding of FP16; as lungs are about a quarter of a radiograph, such a share moves Dice by 0.002 at most."""


@dataclass(frozen=True)
class Parity:
    """How far a converted model is from what it was made from.

    Attributes:
        images: radiographs compared.
        max_abs_difference: of the lung logits.
        pixels: mask pixels compared, at network size.
        flipped_pixels: mask pixels (logit > 0) that differ.
    """

    images: int
    max_abs_difference: float
    pixels: int
    flipped_pixels: int

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        return asdict(self)


def measure_parity(
    model: onnx.ModelProto, reference: Reference, radiographs: Sequence[Radiograph], size: int
) -> Parity:
    """Compare ``model`` in ONNX Runtime with ``reference``; see :func:`compare`."""
    return compare(in_onnxruntime(model), reference, radiographs, size)


def compare(converted: Reference, reference: Reference, radiographs: Sequence[Radiograph], size: int) -> Parity:
    """Compare what is ``converted`` with its ``reference``.

    Args:
        converted: the new one.
        reference: what it was made from.
        radiographs: what to compare on, at least one.
        size: side of the network's input.

    Raises:
        ParityError: there is no radiograph.
    """
    if not radiographs:
        raise ParityError("parity needs at least one radiograph; nothing was written")
    largest, flipped = 0.0, 0
    for radiograph in radiographs:
        image = network_input(radiograph, size)[None, None]
        found, wanted = converted(image), reference(image)
        largest = float(np.maximum(largest, np.abs(found - wanted).max()))
        flipped += int(((found > 0) != (wanted > 0)).sum())
    return Parity(len(radiographs), largest, len(radiographs) * size * size, flipped)


def in_onnxruntime(model: onnx.ModelProto) -> Reference:
    """``model`` as a function, on the CPU.

    Quantised layers are computed as their scales say: the fused ones of a CPU without VNNI saturate.
    """
    session = open_session(model, available_cores())
    name = session.get_inputs()[0].name
    return lambda image: np.asarray(session.run(None, {name: image})[0], np.float32)


def require_parity(
    parity: Parity, tolerance: Tolerance = EXACT, finding: str = "the converted model differs from its original"
) -> None:
    """Raise :class:`ParityError`, which begins with ``finding``, where logits or masks differ by more than allowed."""
    flips_allowed = int(tolerance.flipped_share * parity.pixels)
    if parity.flipped_pixels > flips_allowed or not parity.max_abs_difference <= tolerance.difference:
        raise ParityError(
            f"{finding}: {parity.flipped_pixels} of {parity.pixels} mask pixels flipped (allowed: {flips_allowed}), "
            f"largest logit difference {parity.max_abs_difference:.2g} (allowed: {tolerance.difference:g}) "
            f"on {parity.images} images; nothing was written"
        )
