"""Parity: the converted model against the network that it was made from, on real or made radiographs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from numpy.typing import NDArray

from cxredge.errors import ParityError
from cxredge.preprocessing import network_input
from cxredge.radiograph import Radiograph
from cxredge_train.networks import Codes, Generator

LARGEST_DIFFERENCE = 1e-3
"""Largest absolute difference of a logit that counts as rounding; logits are of the order of 10."""
LARGEST_FLIPPED_SHARE = 1e-6
"""Largest share of mask pixels that may flip: those whose logit is 0 but for rounding."""


@dataclass(frozen=True)
class Parity:
    """How far a converted model is from its network.

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
    model: onnx.ModelProto, generator: Generator, codes: Codes, radiographs: Sequence[Radiograph], size: int
) -> Parity:
    """Compare ``model`` in ONNX Runtime with the unfolded ``G(u, codes)`` in torch.

    Args:
        model: the converted model.
        generator: the generator of the checkpoint.
        codes: the code that was folded, batch of one.
        radiographs: what to compare on, at least one.
        size: side of the network's input.
    """
    if not radiographs:
        raise ParityError("parity needs at least one radiograph; nothing was written")
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    largest, flipped = 0.0, 0
    for radiograph in radiographs:
        image = network_input(radiograph, size)[None, None]
        (found,) = session.run(None, {session.get_inputs()[0].name: image})
        wanted = lung_logit(generator, codes, image)
        largest = float(np.maximum(largest, np.abs(found - wanted).max()))
        flipped += int(((found > 0) != (wanted > 0)).sum())
    return Parity(len(radiographs), largest, len(radiographs) * size * size, flipped)


@torch.no_grad()
def lung_logit(generator: Generator, codes: Codes, image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Lung minus background logit ``(1, 1, S, S)`` of the unfolded generator."""
    logits = generator(torch.from_numpy(image), codes)
    return np.asarray((logits[:, 1:] - logits[:, :1]).numpy(), np.float32)


def require_parity(parity: Parity) -> None:
    """Raise :class:`ParityError` where logits or mask pixels differ by more than rounding."""
    flips_allowed = int(LARGEST_FLIPPED_SHARE * parity.pixels)
    if parity.flipped_pixels > flips_allowed or not parity.max_abs_difference <= LARGEST_DIFFERENCE:
        raise ParityError(
            f"the converted model differs from the checkpoint: {parity.flipped_pixels} of {parity.pixels} mask pixels "
            f"flipped (allowed: {flips_allowed}), largest logit difference {parity.max_abs_difference:.2g} "
            f"(allowed: {LARGEST_DIFFERENCE:g}) on {parity.images} images; nothing was written"
        )
