"""From a model file to an engine in one call: who builds, what is compiled, what it is proved on.

``cxredge build-engine`` and the backend ``tensorrt``, which builds an engine where it finds none, both go
through :func:`build_engine`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxredge.engine.cache import Engine, model_sha256
from cxredge.engine.device import Device, find_device, require_device
from cxredge.engine.flavour import Flavour, FlavourChoice, find_flavour
from cxredge.engine.order import OpenEngine, Order, carry_out, model_contract
from cxredge.engine.progress import BuildProgress, Show
from cxredge.engine.record import Batches
from cxredge.engine.typed_model import Precision, Tell, typed_model
from cxredge.errors import EngineError
from cxredge.evaluation.parity_set import parity_radiographs
from cxredge.preprocessing import network_input


@dataclass(frozen=True)
class Wish:
    """What an engine should be like.

    Attributes:
        flavour: which TensorRT builds.
        compute_capability: of the GPU to build for, as ``"8.9"``; ``None`` for this machine's.
        batches: smallest, best and largest batch.
        precision: of the engine; ``None`` for INT8 where there are samples, FP16 for an FP32 model, else the model's.
        samples: radiographs to calibrate INT8 on.
        parity_images: radiographs of the parity run; made ones where there are none.
        output: plan to write; ``None`` for the cache.
    """

    flavour: FlavourChoice = "auto"
    compute_capability: str | None = None
    batches: Batches = (1, 4, 16)
    precision: Precision | None = None
    samples: tuple[Path, ...] = ()
    parity_images: tuple[Path, ...] = ()
    output: Path | None = None


def build_engine(model: Path, wish: Wish, open_engine: OpenEngine, show: Show, tell: Tell) -> Engine:
    """Build an engine of ``model``, prove it where its GPU is in this machine, and keep it.

    Everything that can be found wrong without a TensorRT object is found first.

    Args:
        model: the model file.
        wish: what it should be like.
        open_engine: loads the engine for the parity run.
        show: told how far typing and building are.
        tell: told where a calibration on the way has left its report.

    Raises:
        ModelError: the model cannot be read.
        EngineError: no GPU, no TensorRT, or the build or the parity run fails; nothing is left behind.
        CalibrationError: the gate refuses, or the samples are not fit.
        OutputError: the engine cannot be written.
        MissingExtraError: something is not installed that the build needs.
        KeyboardInterrupt: Ctrl-C; nothing is left behind.
    """
    contract = model_contract(model)
    flavour, device, capability = target(wish.flavour, wish.compute_capability)
    inputs = parity_inputs(wish.parity_images, contract.input_size) if device else None
    typed = typed_model(model, contract, wish.precision, wish.samples, show, tell)
    order = Order(model_sha256(model), flavour, capability, wish.batches, typed.precision, device, typed.options)
    return carry_out(
        order,
        typed.make,
        output=wish.output,
        inputs=inputs,
        open_engine=open_engine if device else None,
        progress=BuildProgress(show),
    )


def target(choice: FlavourChoice, capability: str | None) -> tuple[Flavour, Device | None, str]:
    """Who builds, the GPU where it is in this machine, and its compute capability; no TensorRT object is made.

    Raises:
        EngineError: no GPU and none named, no TensorRT, or one that cannot build for that GPU.
    """
    if capability is None:
        device = require_device()
        return find_flavour(choice), device, device.compute_capability
    device_here = find_device()
    if device_here is not None and device_here.compute_capability == capability:
        return find_flavour(choice), device_here, capability
    flavour = find_flavour(choice, cross=True)
    if not flavour.cross_builds:
        here = f"whose GPU has {device_here.compute_capability}" if device_here else "which has none"
        raise EngineError(
            f"{flavour.name} builds only for the GPU of this machine, {here}; for compute capability {capability} "
            "build there, or cross-build with tensorrt-rtx (pip install 'cxredge[rtx]')"
        )
    if capability not in flavour.capabilities:
        known = ", ".join(flavour.capabilities)
        raise EngineError(
            f"{flavour.name} {flavour.version} cannot cross-build for compute capability {capability}, only for {known}"
        )
    return flavour, None, capability


def parity_inputs(paths: Sequence[Path], size: int) -> NDArray[np.float32]:
    """Network inputs ``(N, 1, size, size)`` of the radiographs that the parity run is on."""
    return np.stack([network_input(radiograph, size) for radiograph in parity_radiographs(paths)])[:, None]
