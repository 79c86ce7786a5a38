"""Parity: an engine on its GPU against ONNX Runtime, before the engine may be used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxredge.backends import Backend, check_inputs
from cxredge.engine.builder import polygraphy_messages
from cxredge.engine.flavour import Flavour
from cxredge.engine.record import Batches
from cxredge.errors import EngineError

LARGEST_FLIPPED_SHARE = {"fp32": 1e-5, "fp16": 5e-4, "int8": 3e-3}
"""Share of mask pixels (logit > 0) that may differ, by precision: those along the contours whose logit is near 0.

The reference rounds where the model file says so and sums in FP32. A GPU sums in another order and keeps FP16
between fused layers; a rounding that falls to the other side moves an INT8 value by a whole step. For scale: typing
the bundled model FP16 flips 2e-5 of its pixels, INT8 1e-3.
"""


@dataclass(frozen=True)
class EngineParity:
    """How far an engine is from ONNX Runtime.

    Attributes:
        images: network inputs compared.
        batches: batch sizes that were run.
        pixels: mask pixels compared, at network size, over all batches.
        flipped_pixels: mask pixels (logit > 0) that differ.
        max_abs_difference: of the lung logits.
        finite: whether every logit is a number.
        largest_flipped_share: share of flipped pixels up to which the engine passes.
        reference: what it was compared with.
    """

    images: int
    batches: tuple[int, ...]
    pixels: int
    flipped_pixels: int
    max_abs_difference: float
    finite: bool
    largest_flipped_share: float
    reference: str

    @property
    def passed(self) -> bool:
        """Whether the engine segments as the model does."""
        return self.finite and self.flipped_pixels <= self.largest_flipped_share * self.pixels

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        return {**asdict(self), "batches": list(self.batches)}


class Differences:
    """Sums up how the engine's logits differ from the reference's, batch by batch."""

    def __init__(self) -> None:
        self.flipped, self.pixels, self.largest, self.finite = 0, 0, 0.0, True

    def add(self, wanted: NDArray[np.float32], found: NDArray[np.float32]) -> bool:
        """Add logits ``(N, S, S)`` of both; gives whether their masks are the same.

        Raises:
            EngineError: the engine's have another shape.
        """
        if found.shape != wanted.shape:
            raise EngineError(f"the engine gives logits of shape {found.shape}, not {wanted.shape}; it was deleted")
        flipped = int(((found > 0) != (wanted > 0)).sum())
        self.flipped += flipped
        self.pixels += found.size
        self.finite &= bool(np.isfinite(found).all())
        self.largest = max(self.largest, float(np.nan_to_num(np.abs(found - wanted)).max()))
        return flipped == 0


def measure_parity(
    engine: Backend,
    reference: Backend,
    inputs: NDArray[np.float32],
    batches: Batches,
    precision: str,
    flavour: Flavour,
) -> EngineParity:
    """Run both on the same inputs, with the engine's smallest, best and largest batch, in Polygraphy's Comparator.

    Args:
        engine: what is to be proved.
        reference: ONNX Runtime on the typed model.
        inputs: ``(N, 1, S, S)`` network inputs; a batch that is larger repeats them.
        batches: of the engine's profile.
        precision: of the engine; sets what is tolerated.
        flavour: that the engine was built with.

    Raises:
        EngineError: no inputs, or what the engine gives cannot be compared.
        BackendError: one of the two failed.
    """
    if len(inputs) == 0:
        raise EngineError("parity needs at least one radiograph")
    check_inputs(inputs, reference.contract)
    sizes = tuple(sorted(set(batches)))
    orders = runs(len(inputs), sizes)
    differences = Differences()
    with polygraphy_messages(flavour, builds=False):
        from polygraphy.exception import PolygraphyException

        from cxredge.engine.comparison import compare_runs

        try:
            compare_runs(reference, engine, (inputs[order] for order in orders), differences.add)
        except PolygraphyException as error:
            raise EngineError(f"what the engine gives cannot be compared: {error}; it was deleted") from error
    if differences.pixels != sum(map(len, orders)) * inputs[0].size:
        raise EngineError("the engine was not compared on every radiograph; it was deleted")
    return EngineParity(
        images=len(inputs),
        batches=sizes,
        pixels=differences.pixels,
        flipped_pixels=differences.flipped,
        max_abs_difference=differences.largest,
        finite=differences.finite,
        largest_flipped_share=LARGEST_FLIPPED_SHARE[precision],
        reference=reference.name,
    )


def runs(images: int, sizes: Sequence[int]) -> list[NDArray[np.intp]]:
    """Indices of the inputs of each run, so that with each batch size every image is seen at least once."""
    found = []
    for size in sizes:
        count = -(-images // size)
        found += np.split(np.arange(count * size) % images, count)
    return found


def require_parity(parity: EngineParity) -> None:
    """Raise :class:`EngineError` where the engine does not pass."""
    if parity.passed:
        return
    if not parity.finite:
        raise EngineError("the engine gives logits that are not numbers; it was deleted")
    raise EngineError(
        f"the engine's masks differ from those of {parity.reference}: {parity.flipped_pixels} of {parity.pixels} "
        f"pixels flipped (allowed: {int(parity.largest_flipped_share * parity.pixels)}), largest logit difference "
        f"{parity.max_abs_difference:.2g}; it was deleted"
    )
