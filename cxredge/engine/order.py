"""An order for an engine: what is to be built for which GPU, carried out step by step."""

from __future__ import annotations

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from cxredge.backends import Backend
from cxredge.backends.onnxruntime import OnnxRuntimeBackend, open_session, require_signature, session_contract
from cxredge.contract import Contract
from cxredge.engine.builder import BuildSettings, build_plan
from cxredge.engine.cache import Engine, EngineKey, cache_folder, cached_engine, make_engine
from cxredge.engine.device import Device
from cxredge.engine.flavour import Flavour
from cxredge.engine.parity import EngineParity, measure_parity, require_parity
from cxredge.engine.progress import BuildProgress
from cxredge.engine.record import Batches, EngineRecord
from cxredge.errors import EngineError, ModelError, OutputError
from cxredge.runs.results import write_atomically

OpenEngine: TypeAlias = Callable[[Path, EngineRecord], Backend]
"""Loads an engine on the GPU."""
TypedModel: TypeAlias = Callable[[], Path]
"""Makes the typed model file; called only where an engine has to be built."""

BUILD_OPTIONS = {"strongly_typed": True, "tf32": False}
"""Options that are the same in every build; a change of them makes other engines."""
SPACE_A_MODEL_BYTE = 6
LEAST_SPACE = 64 << 20
"""Free bytes that a build needs: a fixed part, and plan and intermediate files for each byte of the model."""


@dataclass(frozen=True)
class Order:
    """What is to be built.

    Attributes:
        model_sha256: of the model file that was named.
        flavour: the TensorRT that builds.
        compute_capability: of the GPU, as ``"8.9"``.
        batches: smallest, best and largest batch.
        precision: of the typed model.
        device: the GPU where it is in this machine; ``None`` for a cross-build.
        options: what went into the typed model beside the model, as the hash of the calibration samples.
    """

    model_sha256: str
    flavour: Flavour
    compute_capability: str
    batches: Batches
    precision: str
    device: Device | None = None
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> EngineKey:
        """Its name in the cache."""
        measures = self.flavour.name == "tensorrt" and self.device is not None
        return EngineKey(
            self.model_sha256,
            self.flavour.name,
            self.flavour.version,
            self.compute_capability,
            self.batches,
            self.precision,
            self.device.name if measures and self.device else None,
            {**BUILD_OPTIONS, **self.options},
        )

    @property
    def settings(self) -> BuildSettings:
        """Its settings for the builder."""
        timing_cache = timing_cache_path(self.key) if self.flavour.name == "tensorrt" else None
        return BuildSettings(self.batches, self.compute_capability, self.device is not None, timing_cache)


def timing_cache_path(key: EngineKey) -> Path:
    """Where ``tensorrt`` keeps what it measured: one file for each version and GPU."""
    whose = json.dumps([key.flavour, key.version, key.compute_capability, key.gpu_name])
    return cache_folder() / f"timing-{hashlib.sha256(whose.encode()).hexdigest()[:16]}.bin"


def carry_out(
    order: Order,
    typed_model: TypedModel,
    *,
    output: Path | None = None,
    inputs: NDArray[np.float32] | None = None,
    open_engine: OpenEngine | None = None,
    progress: BuildProgress | None = None,
) -> Engine:
    """Build an engine, prove it where its GPU is in this machine, and keep it.

    Args:
        order: what to build.
        typed_model: makes the model file to compile.
        output: plan file to write, always anew; ``None`` for the cache, where an engine of this order is used again.
        inputs: ``(N, 1, S, S)`` network inputs of the parity run; ``None`` to leave it out.
        open_engine: loads the engine for the parity run; ``None`` to leave it out.
        progress: told about the steps of the build.

    Raises:
        EngineError: the build or the parity run fails; nothing is left behind.
        OutputError: the engine cannot be written.
        KeyboardInterrupt: Ctrl-C; nothing is left behind.
    """

    def build(plan: Path) -> EngineRecord:
        model = typed_model()
        require_space(plan.parent, model.stat().st_size)
        record = build_and_write(order, model, plan, progress or BuildProgress())
        if inputs is None or open_engine is None:
            return record
        return replace(record, parity=proved(plan, record, model, inputs, open_engine, order.flavour).to_dict())

    if output is None:
        return cached_engine(order.key, build, proved_only=inputs is not None and open_engine is not None)
    return output, make_engine(output, build)


def require_space(folder: Path, model_bytes: int) -> None:
    """Raise :class:`OutputError` where the disk has no room for a plan."""
    needed = LEAST_SPACE + SPACE_A_MODEL_BYTE * model_bytes
    free = shutil.disk_usage(folder).free
    if free < needed:
        raise OutputError(
            f"{folder}: the disk is full: a build needs {needed >> 20} MiB, {free >> 20} MiB are free; "
            "nothing was built"
        )


def build_and_write(order: Order, model: Path, plan: Path, progress: BuildProgress) -> EngineRecord:
    """Compile ``model``, write the plan, and describe it."""
    started = time.monotonic()
    try:
        content = build_plan(model.read_bytes(), order.flavour, order.settings, progress)
    except EngineError as error:
        raise EngineError(f"{model}: {error}") from error
    seconds = time.monotonic() - started
    write_atomically(plan, content)
    return EngineRecord(
        model_sha256=order.model_sha256,
        plan_sha256=hashlib.sha256(content).hexdigest(),
        plan_bytes=len(content),
        flavour=order.flavour.name,
        version=order.flavour.version,
        compute_capability=order.compute_capability,
        batches=order.batches,
        precision=order.precision,
        contract=json.loads(model_contract(model).to_json()),
        gpu_name=order.device.name if order.device else None,
        driver=order.device.driver if order.device else None,
        options=order.key.options,
        build_seconds=round(seconds, 3),
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )


def proved(
    plan: Path,
    record: EngineRecord,
    model: Path,
    inputs: NDArray[np.float32],
    open_engine: OpenEngine,
    flavour: Flavour,
) -> EngineParity:
    """Compare an engine with ONNX Runtime on the model that it was compiled from.

    Raises:
        EngineError: the engine's masks differ.
    """
    reference = OnnxRuntimeBackend(model)
    engine = open_engine(plan, record)
    try:
        parity = measure_parity(engine, reference, inputs, record.batches, record.precision, flavour)
    finally:
        engine.close()
        reference.close()
    require_parity(parity)
    return parity


def model_contract(model: Path, *, with_processing: bool = False) -> Contract:
    """The contract of a model file, read through ONNX Runtime; see :func:`cxredge.contract.parse_contract`.

    Raises:
        ModelError: no such file, or no valid contract in it.
    """
    if not model.is_file():
        raise ModelError(f"{model}: there is no such model file")
    session = open_session(model, threads=1)
    contract = session_contract(session, model, with_processing=with_processing)
    if contract.processing is None:
        require_signature(session, contract.input_size, model)
    return contract
