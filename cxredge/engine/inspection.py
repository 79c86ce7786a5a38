"""What an engine is, whether its files are whole, and what would make it be rebuilt here."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from cxredge import __version__
from cxredge.engine.cache import kept_engines, model_sha256
from cxredge.engine.device import Device, require_device
from cxredge.engine.fit import Wanted, mismatches, plan_damage
from cxredge.engine.flavour import Flavour, FlavourChoice, find_flavour
from cxredge.engine.machine import wanted_here
from cxredge.engine.order import BUILD_OPTIONS
from cxredge.engine.record import EngineRecord, read_record, sidecar_path
from cxredge.errors import EngineError


@dataclass(frozen=True)
class EngineInspection:
    """What is known about an engine; no TensorRT object is made to know it.

    Attributes:
        plan: the plan file.
        record: its sidecar.
        damage: what is wrong with the plan's bytes.
        rebuild: why it would be rebuilt on this machine.
        unknown: what could not be compared, and why.
    """

    plan: Path
    record: EngineRecord
    damage: tuple[str, ...]
    rebuild: tuple[str, ...]
    unknown: tuple[str, ...]

    @property
    def usable(self) -> bool:
        """Whether nothing is wrong and everything that matters here was compared."""
        return not (self.damage or self.rebuild or self.unknown)

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        return {
            "kind": "engine",
            "plan": str(self.plan),
            "sidecar": json.loads(self.record.to_json()),
            "damage": list(self.damage),
            "rebuild": list(self.rebuild),
            "unknown": list(self.unknown),
        }


def inspect_engine(plan: Path, model: Path | None = None) -> EngineInspection:
    """Read an engine's sidecar and compare it with its plan, with this machine and with a model.

    Args:
        plan: the plan file; its sidecar lies beside it.
        model: the model file that the engine should be of; ``None`` leaves that open.

    Raises:
        EngineError: the sidecar is missing or not valid.
        ModelError: the model cannot be read.
    """
    record = read_record(sidecar_path(plan))
    unknown = []
    flavour, device = None, None
    choice: FlavourChoice = "tensorrt" if record.flavour == "tensorrt" else "tensorrt-rtx"
    try:
        flavour = find_flavour(choice)
    except EngineError as error:
        unknown.append(f"whether it fits the installed TensorRT: {error}")
    try:
        device = require_device()
    except EngineError as error:
        unknown.append(f"whether it fits the GPU: {error}")
    if model is None:
        unknown.append("whether its model has changed: name the model to compare with (--model)")
    rebuild = mismatches(record, wanted_by(model, flavour, device))
    rebuild += stale_options(record)
    if record.parity is None:
        rebuild.append("its parity has not been run; build-engine will, where its GPU is")
    return EngineInspection(plan, record, tuple(plan_damage(plan, record)), tuple(rebuild), tuple(unknown))


def stale_options(record: EngineRecord) -> list[str]:
    """How an engine that this cxredge builds of the same order would differ."""
    reasons = [
        f"{name} is {record.options.get(name)}, this cxredge builds with {value}"
        for name, value in BUILD_OPTIONS.items()
        if record.options.get(name) != value
    ]
    typed_by = record.options.get("typed_by", __version__)
    if typed_by != __version__:
        reasons.append(f"its model was typed by cxredge {typed_by}, this is {__version__}")
    return reasons


def wanted_by(model: Path | None, flavour: Flavour | None, device: Device | None) -> Wanted:
    """What an engine of ``model`` must be for to run here."""
    return replace(wanted_here(flavour, device), model_sha256=None if model is None else model_sha256(model))


def engines_of(model: Path) -> tuple[tuple[Path, EngineRecord], ...]:
    """The engines in the cache that were built from ``model``.

    Raises:
        ModelError: the model cannot be read.
    """
    sha256 = model_sha256(model)
    return tuple((plan, record) for plan, record in kept_engines() if record.model_sha256 == sha256)
