"""This machine as an engine sees it: its TensorRT and its GPU."""

from __future__ import annotations

from pathlib import Path

from cxredge.engine.cache import Engine, find_engine
from cxredge.engine.device import Device, find_device
from cxredge.engine.fit import Wanted
from cxredge.engine.flavour import Flavour, FlavourChoice, find_flavour
from cxredge.errors import EngineError


def wanted_here(flavour: Flavour | None, device: Device | None) -> Wanted:
    """What an engine must be for to run here; what is not known is left open."""
    return Wanted(
        flavour=None if flavour is None else flavour.name,
        version=None if flavour is None else flavour.version,
        compute_capability=None if device is None else device.compute_capability,
        gpu_name=None if device is None else device.name,
    )


def engine_here(model: Path, choice: FlavourChoice = "auto") -> Engine | None:
    """The cached engine that runs ``model`` on this machine's GPU, or ``None``: no GPU, no TensorRT, no such engine.

    An engine counts once its parity run has passed; one of a cross-build has had none. No TensorRT object is made.

    Args:
        model: the model file.
        choice: which TensorRT; ``auto`` looks for an engine of each that is installed, ``tensorrt`` first.

    Raises:
        ModelError: the model cannot be read.
    """
    device = find_device()
    if device is None:
        return None
    choices: tuple[FlavourChoice, ...] = ("tensorrt", "tensorrt-rtx") if choice == "auto" else (choice,)
    for one in choices:
        try:
            flavour = find_flavour(one)
        except EngineError:
            continue
        engine = find_engine(model, wanted_here(flavour, device), proved_only=True)
        if engine is not None:
            return engine
    return None
