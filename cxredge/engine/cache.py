"""The cache of engines: found by content, written whole, and by one process at a time.

An engine is ``KEY.plan`` and ``KEY.json`` in the user's cache folder. The key is a hash over everything that
goes into the build, so that two models of equal shapes never share an engine. The sidecar is written
last: a plan without one, or with another's, is no engine.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import platformdirs
from filelock import FileLock

from cxredge.engine.fit import Wanted, check, mismatches
from cxredge.engine.record import Batches, EngineRecord, FlavourName, file_sha256, read_record, sidecar_path
from cxredge.errors import EngineError, ModelError, OutputError
from cxredge.runs.results import remove_file, write_atomically

PLAN_SUFFIX = ".plan"
Engine: TypeAlias = tuple[Path, EngineRecord]
"""A plan and its sidecar's content."""


@dataclass(frozen=True)
class EngineKey:
    """Everything that a build depends on.

    Attributes:
        model_sha256: of the model file.
        flavour: of the library.
        version: of the library.
        compute_capability: of the GPU.
        batches: smallest, best and largest batch.
        precision: ``fp32``, ``fp16`` or ``int8``.
        gpu_name: of the GPU that kernels are timed on; ``None`` where none are.
        options: whatever else changes the plan.
    """

    model_sha256: str
    flavour: FlavourName
    version: str
    compute_capability: str
    batches: Batches
    precision: str
    gpu_name: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def digest(self) -> str:
        """SHA-256 over all of it: the name of the engine in the cache."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()

    @property
    def wanted(self) -> Wanted:
        """What an engine of this key must be for."""
        return Wanted(self.model_sha256, self.flavour, self.version, self.compute_capability, self.gpu_name)


def cache_folder() -> Path:
    """Folder of the engines; it may be deleted at any time."""
    return Path(platformdirs.user_cache_dir("cxredge")) / "engines"


def cached_engine(key: EngineKey, build: Callable[[Path], EngineRecord], *, proved_only: bool = False) -> Engine:
    """The engine of ``key``: from the cache, or built and kept there.

    Of several processes that ask at once one builds, the others wait for it.

    Args:
        key: what the engine depends on.
        build: see :func:`make_engine`.
        proved_only: build again where the engine in the cache had no parity run, as after a cross-build.

    Raises:
        OutputError: the cache cannot be written, as on a full disk.
        EngineError: the build fails; nothing is kept.
    """
    plan = cache_folder() / f"{key.digest()}{PLAN_SUFFIX}"
    with held_lock(plan):
        record = fitting_record(plan, key.wanted)
        if record is not None and proved_only and record.parity is None:
            record = None
        return plan, make_engine(plan, build) if record is None else record


def make_engine(plan: Path, build: Callable[[Path], EngineRecord]) -> EngineRecord:
    """Build an engine to ``plan`` and write its sidecar; where either fails neither is left behind.

    Args:
        plan: where to; a plan and sidecar there are replaced.
        build: writes the plan to the path that it is given, and returns its sidecar.

    Raises:
        OutputError: the files cannot be written.
        EngineError: the build fails.
    """
    sidecar = sidecar_path(plan)
    try:
        plan.parent.mkdir(parents=True, exist_ok=True)
        sidecar.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(f"{plan}: cannot be written: {error.strerror or error}") from error
    kept = False
    try:
        record = build(plan)
        write_atomically(sidecar, record.to_json().encode())
        kept = True
    finally:
        if not kept:
            remove_file(plan)
    return record


def find_engine(model: Path, wanted: Wanted, *, proved_only: bool = False) -> Engine | None:
    """An engine in the cache that was built from ``model`` and fits.

    Where there are several, of other precisions or batches, the one that was built last is the wanted one.

    Args:
        model: the model file; its content counts.
        wanted: the installed TensorRT and the GPU; its ``model_sha256`` is not used.
        proved_only: leave out engines that had no parity run.

    Raises:
        ModelError: the model cannot be read.
    """
    wanted = Wanted(model_sha256(model), wanted.flavour, wanted.version, wanted.compute_capability, wanted.gpu_name)
    found = [(plan, record) for plan, record in kept_engines() if not mismatches(record, wanted)]
    for plan, record in sorted(found, key=lambda engine: engine[1].created, reverse=True):
        if not (proved_only and record.parity is None) and not check(plan, record, wanted):
            return plan, record
    return None


def model_sha256(model: Path) -> str:
    """SHA-256 of a model file.

    Raises:
        ModelError: it cannot be read.
    """
    try:
        return file_sha256(model)
    except OSError as error:
        raise ModelError(f"{model}: cannot be read: {error.strerror or error}") from error


def kept_engines() -> Iterator[Engine]:
    """Everything in the cache that has a valid sidecar."""
    folder = cache_folder()
    for plan in sorted(folder.glob(f"*{PLAN_SUFFIX}")) if folder.is_dir() else ():
        try:
            yield plan, read_record(sidecar_path(plan))
        except EngineError:
            continue


def fitting_record(plan: Path, wanted: Wanted) -> EngineRecord | None:
    """The sidecar of ``plan`` where the engine is whole and fits, else ``None``."""
    try:
        record = read_record(sidecar_path(plan))
    except EngineError:
        return None
    return None if check(plan, record, wanted) else record


@contextmanager
def held_lock(plan: Path) -> Iterator[None]:
    """Hold the lock of an engine.

    Raises:
        OutputError: the folder cannot be written.
    """
    try:
        plan.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(plan.with_suffix(".lock")).acquire()
    except OSError as error:
        raise OutputError(f"{plan.parent}: engines cannot be kept there: {error.strerror or error}") from error
    with lock:
        yield
