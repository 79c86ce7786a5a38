"""Whether an engine fits a model, the installed TensorRT and the GPU: decided before any TensorRT object is made."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cxredge.engine.record import EngineRecord, FlavourName, file_sha256


@dataclass(frozen=True)
class Wanted:
    """What an engine must be for; ``None`` where it does not matter or cannot be told.

    Attributes:
        model_sha256: of the model file.
        flavour: of the installed library.
        version: of the installed library.
        compute_capability: of the GPU.
        gpu_name: of the GPU; compared for ``tensorrt`` only, whose plans hold what was fastest on one GPU.
    """

    model_sha256: str | None = None
    flavour: FlavourName | None = None
    version: str | None = None
    compute_capability: str | None = None
    gpu_name: str | None = None


def check(plan: Path, record: EngineRecord, wanted: Wanted) -> list[str]:
    """Why an engine does not fit, from its sidecar and the plan's bytes alone; empty where it fits.

    Args:
        plan: the plan file.
        record: its sidecar.
        wanted: what it must be for.
    """
    return mismatches(record, wanted) + plan_damage(plan, record)


def mismatches(record: EngineRecord, wanted: Wanted) -> list[str]:
    """Why the engine that ``record`` describes is not ``wanted``."""
    reasons = []
    if wanted.model_sha256 not in (None, record.model_sha256):
        reasons.append(f"it was built from another model (sha256 {record.model_sha256[:12]}…)")
    if wanted.flavour not in (None, record.flavour):
        reasons.append(f"it is for {record.flavour}, installed is {wanted.flavour}")
    elif wanted.version not in (None, record.version):
        reasons.append(f"it was built by {record.flavour} {record.version}, installed is {wanted.version}")
    if wanted.compute_capability not in (None, record.compute_capability):
        reasons.append(
            f"it is for compute capability {record.compute_capability}, the GPU has {wanted.compute_capability}"
        )
    elif record.flavour == "tensorrt" and record.gpu_name and wanted.gpu_name not in (None, record.gpu_name):
        reasons.append(f"it was built on {record.gpu_name}, the GPU is {wanted.gpu_name}")
    return reasons


def plan_damage(plan: Path, record: EngineRecord) -> list[str]:
    """Why ``plan`` is not the plan that ``record`` describes: missing, truncated or another."""
    try:
        size = plan.stat().st_size
        if size < record.plan_bytes:
            return [f"the plan is truncated: {size} of {record.plan_bytes} bytes"]
        if size > record.plan_bytes or file_sha256(plan) != record.plan_sha256:
            return ["the plan is not the one that the sidecar describes (its sha256 differs)"]
    except OSError as error:
        return [f"the plan cannot be read: {error.strerror or error}"]
    return []
