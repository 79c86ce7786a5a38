"""A model with its processing inside against cxredge: the same pixels, and the masks that come of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
import onnx
from numpy.typing import NDArray

from cxredge.errors import ParityError
from cxredge.libraries.open_cv import cv2
from cxredge.postprocessing import lung_mask
from cxredge.preprocessing import network_input
from cxredge.radiograph import Radiograph
from cxredge_calibration.model_file import add_contract, read_contract
from cxredge_calibration.simulation import open_session
from cxredge_export.parity import EXACT, HALF, Parity, in_onnxruntime, require_parity
from cxredge_export.processing import ENDS, IMAGE, LOGITS, MASK, add_processing

Whole: TypeAlias = Callable[[NDArray[np.float32]], tuple[NDArray[np.uint8], NDArray[np.float32]]]
"""From a raw image ``(H, W)`` to mask ``(H, W)`` and logits ``(S, S)``."""


@dataclass(frozen=True)
class ProcessingParity(Parity):
    """How far a model with its processing inside is from cxredge with the bare model, at the radiographs' own sizes.

    Attributes:
        cleaned_pixels: mask pixels that differ from cxredge's final mask, which is cleaned: what is left to the caller.
    """

    cleaned_pixels: int


def measure_processing(whole: Whole, bare: onnx.ModelProto, radiographs: Sequence[Radiograph]) -> ProcessingParity:
    """Compare ``whole`` with cxredge's own processing around ``bare``, both in ONNX Runtime.

    Raises:
        ParityError: there is no radiograph.
    """
    if not radiographs:
        raise ParityError("parity needs at least one radiograph; nothing was written")
    network = in_onnxruntime(bare)
    size = bare.graph.input[0].type.tensor_type.shape.dim[2].dim_value
    largest, pixels, flipped, cleaned = 0.0, 0, 0, 0
    for radiograph in radiographs:
        height, width = radiograph.shape
        logits = network(network_input(radiograph, size)[None, None])[0, 0]
        mask, found = whole(raw_image(radiograph))
        uncleaned = cv2.resize(logits, (width, height), interpolation=cv2.INTER_LINEAR) > 0
        largest = float(np.maximum(largest, np.abs(found - logits).max()))
        pixels += mask.size
        flipped += int((mask != uncleaned).sum())
        cleaned += int((mask != lung_mask(logits, radiograph.shape)).sum())
    return ProcessingParity(len(radiographs), largest, pixels, flipped, cleaned)


def raw_image(radiograph: Radiograph) -> NDArray[np.float32]:
    """What a caller passes for a radiograph: clipped to the values that count, negated where the largest is black."""
    image = radiograph.pixels.astype(np.float32)
    if radiograph.value_range is not None:
        np.clip(image, *radiograph.value_range, out=image)
    return image if radiograph.polarity == "MONOCHROME2" else -image


def whole_in_onnxruntime(model: onnx.ModelProto, threads: int = 1) -> Whole:
    """``model`` as a function, on the CPU."""
    session = open_session(model, threads)

    def run(image: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        mask, logits = session.run([MASK, LOGITS], {IMAGE: image})
        return mask, logits

    return run


def require_processing_parity(parity: ProcessingParity, precision: str) -> None:
    """Raise :class:`ParityError` where logits or uncleaned masks differ by more than rounding explains.

    The last bit of an input can turn a rounding to FP16 or INT8 inside the network.
    """
    tolerance = EXACT if precision == "fp32" else HALF
    require_parity(parity, tolerance, "the model with its processing inside differs from cxredge")


def compared_processing(model: onnx.ModelProto, radiographs: Sequence[Radiograph]) -> onnx.ModelProto:
    """:func:`add_processing` to a model with a contract, compared with cxredge's own processing around it.

    The contract is carried along and says what goes in and comes out.

    Raises:
        ModelError: as :func:`add_processing`.
        ParityError: the masks differ by more than rounding explains.
    """
    contract = read_contract(model)
    whole = add_processing(model)
    parity = measure_processing(whole_in_onnxruntime(whole), model, radiographs)
    require_processing_parity(parity, contract.precision)
    add_contract(whole, replace(contract, processing={**ENDS, "parity": parity.to_dict()}))
    return whole
