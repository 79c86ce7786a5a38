"""Which engine runs a model on this machine: a plan that is named, one in the cache, or one that is built now."""

from __future__ import annotations

import logging
from pathlib import Path

from cxredge.backends import Backend
from cxredge.engine.cache import PLAN_SUFFIX, Engine, cache_folder
from cxredge.engine.device import require_device
from cxredge.engine.flavour import find_flavour
from cxredge.engine.machine import engine_here
from cxredge.engine.record import EngineRecord
from cxredge.errors import EngineError

LOGGER = logging.getLogger(__name__)


def open_plan(plan: Path, record: EngineRecord | None = None) -> Backend:
    """An engine on this machine's GPU.

    Raises:
        EngineError: no such engine, or one that does not fit.
        BackendError: no GPU, or not enough of its memory.
    """
    from cxredge.backends.tensorrt import TensorRTBackend

    return TensorRTBackend(plan, record)


def open_cached(model: Path) -> Backend | None:
    """The cached engine that runs ``model`` on this machine's GPU, or ``None``; nothing is built.

    Without any engine in the cache the driver is not even asked.

    Raises:
        EngineError: there is one, but TensorRT cannot load it.
        BackendError: there is one, but the GPU has not enough memory.
    """
    if not any(cache_folder().glob(f"*{PLAN_SUFFIX}")):
        LOGGER.info("runs without TensorRT: there are no engines in the cache")
        return None
    engine = engine_here(model)
    if engine is None:
        LOGGER.info("runs without TensorRT: no engine in the cache fits the model and this machine")
        return None
    LOGGER.info("runs as the engine %s on TensorRT", engine[0].stem)
    return open_plan(*engine)


def open_or_build(model: Path, *, build: bool) -> Backend:
    """The engine that runs ``model`` on this machine's GPU; where the cache has none it is built.

    Args:
        model: the model file.
        build: whether an engine may be built.

    Raises:
        EngineError: no GPU, no TensorRT, the build failed, or there is no engine and none may be built.
        BackendError: not enough memory on the GPU.
    """
    engine = engine_here(model)
    if engine is None:
        require_device()
        find_flavour()
        if not build:
            raise EngineError(
                f"{model}: the cache has no engine of it for this machine's GPU and TensorRT; "
                f"build one with 'cxredge build-engine {model}', or leave --no-build away"
            )
        LOGGER.info("no engine in the cache fits the model and this machine; building one")
        engine = build_default(model)
    return open_plan(*engine)


def build_default(model: Path) -> Engine:
    """Build, prove and cache an engine as ``cxredge build-engine MODEL`` does.

    Raises:
        EngineError: the build or the parity run fails.
        MissingExtraError: something is not installed that the build needs.
    """
    from cxredge.engine.build import Wish, build_engine
    from cxredge.engine.progress import progress_bar

    with progress_bar() as show:
        return build_engine(model, Wish(), open_plan, show, LOGGER.info)
