"""A plan, deserialised and held against its sidecar; what makes execution contexts of it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cxredge.backends.tensorrt_log import forget_error, last_error, logger_for
from cxredge.engine.cache import cache_folder
from cxredge.engine.flavour import Flavour
from cxredge.engine.record import EngineRecord
from cxredge.errors import EngineError, OutputError
from cxredge.limits import LimitError, read_bytes
from cxredge.runs.results import write_atomically


@dataclass(frozen=True)
class Contexts:
    """What makes execution contexts of an engine.

    Attributes:
        activation_bytes: device memory that a context has to be given; 0 where it allocates its own.
        own_bytes: device memory that each context allocates itself.
        make: gives a context, or ``None`` where that fails.
        save: keeps what was compiled meanwhile for the next process.
    """

    activation_bytes: int
    own_bytes: int
    make: Callable[[], Any]
    save: Callable[[], None]


@dataclass(frozen=True)
class LoadedEngine:
    """What a lane needs to know of an engine.

    Attributes:
        input: name of its input, ``(N, 1, S, S)`` float32.
        output: name of its output, of the same shape and type.
        size: S in pixels.
        smallest: batch; smaller ones are filled up.
        largest: batch.
        contexts: makes its execution contexts.
    """

    input: str
    output: str
    size: int
    smallest: int
    largest: int
    contexts: Contexts


def load_engine(plan: Path, flavour: Flavour, record: EngineRecord, *, graphs: bool) -> LoadedEngine:
    """Deserialise a plan that fits; the GPU's context is current.

    Args:
        plan: the plan file.
        flavour: the TensorRT that built it.
        record: its sidecar.
        graphs: whether a library that captures CUDA graphs by itself is to do so.

    Raises:
        EngineError: it cannot be read or deserialised, or is not of the contract.
    """
    trt = flavour.module
    try:
        content = read_bytes(plan, record.plan_bytes)
    except OSError as error:
        raise EngineError(f"{plan}: cannot be read: {error.strerror or error}") from error
    except LimitError as error:
        raise EngineError(f"{plan}: {error}, its sidecar says; build the engine again") from error
    forget_error()
    runtime = trt.Runtime(logger_for(trt))
    require_validity(plan, runtime, trt, content)
    engine = runtime.deserialize_cuda_engine(content)
    if engine is None:
        raise EngineError(f"{plan}: {flavour.name} {flavour.version} cannot load it: {last_error()}; build it again")
    size = record.read_contract().input_size
    names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
    inputs = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    outputs = [name for name in names if name not in inputs]
    require_signature(plan, trt, engine, {"input": inputs, "output": outputs}, size)
    require_batches(plan, engine, inputs[0], record)
    smallest, _, largest = record.batches
    if captures_itself(flavour):
        kernels = cache_folder() / f"kernels-{record.plan_sha256[:16]}.bin"
        contexts = self_capturing_contexts(trt, engine, kernels, graphs=graphs)
    else:
        contexts = plain_contexts(trt, engine)
    return LoadedEngine(inputs[0], outputs[0], size, smallest, largest, contexts)


def require_validity(plan: Path, runtime: Any, trt: Any, content: bytes) -> None:
    """Raise :class:`EngineError` where TensorRT for RTX says that a plan is not for this machine."""
    if hasattr(runtime, "get_engine_validity"):
        validity, diagnostics = runtime.get_engine_validity(content)
        if validity == trt.EngineValidity.INVALID:
            raise EngineError(f"{plan}: is not valid on this machine ({diagnostics}); build it again")


def require_signature(plan: Path, trt: Any, engine: Any, names: dict[str, list[str]], size: int) -> None:
    """Raise :class:`EngineError` where the plan is not ``(N, 1, S, S) -> (N, 1, S, S)`` float32 as contracted."""
    for kind, ends in names.items():
        shapes = [(engine.get_tensor_dtype(name), tuple(engine.get_tensor_shape(name))[1:]) for name in ends]
        if shapes != [(trt.DataType.FLOAT, (1, size, size))]:
            raise EngineError(f"{plan}: its {kind} is {shapes}, its contract says float32 (N, 1, {size}, {size})")


def require_batches(plan: Path, engine: Any, name: str, record: EngineRecord) -> None:
    """Raise :class:`EngineError` where the plan's profile is not the sidecar's."""
    batches = tuple(int(shape[0]) for shape in map(tuple, engine.get_tensor_profile_shape(name, 0)))
    if batches != record.batches:
        raise EngineError(f"{plan}: it is for batches {batches}, its sidecar says {record.batches}; build it again")


def plain_contexts(trt: Any, engine: Any) -> Contexts:
    """Contexts that are given the memory of their activations, so that several can share it."""
    strategy = trt.ExecutionContextAllocationStrategy.USER_MANAGED
    needed = int(engine.device_memory_size_v2)
    return Contexts(needed, 0, lambda: engine.create_execution_context(strategy), lambda: None)


def captures_itself(flavour: Flavour) -> bool:
    """Whether the library captures CUDA graphs by itself, as TensorRT for RTX does from 1.2 on."""
    return hasattr(flavour.module, "CudaGraphStrategy")


def self_capturing_contexts(trt: Any, engine: Any, kernels: Path, *, graphs: bool) -> Contexts:
    """Contexts of TensorRT for RTX, which compiles kernels for each shape and captures graphs of them by itself.

    Args:
        trt: the module.
        engine: the engine.
        kernels: file that keeps compiled kernels from one process to the next.
        graphs: whether graphs are captured.
    """
    assert hasattr(trt, "CudaGraphStrategy")
    runtime_config = engine.create_runtime_config()
    strategy = trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE if graphs else trt.CudaGraphStrategy.DISABLED
    runtime_config.cuda_graph_strategy = strategy
    cache = KernelCache(runtime_config, kernels)
    own = int(engine.device_memory_size_v2)
    return Contexts(0, own, lambda: engine.create_execution_context(runtime_config), cache.save)


class KernelCache:
    """Kernels that TensorRT for RTX compiled for one engine; it refuses those of another GPU or version itself.

    Args:
        runtime_config: of the contexts that share it.
        path: file; one that is missing or does not fit counts as empty.
    """

    def __init__(self, runtime_config: Any, path: Path) -> None:
        assert hasattr(runtime_config, "create_runtime_cache")
        self._path = path
        runtime_cache = runtime_config.create_runtime_cache()
        content = b""
        with suppress(OSError):
            content = path.read_bytes()
        self._kept = content if content and runtime_cache.deserialize(content) else b""
        runtime_config.set_runtime_cache(runtime_cache)
        self._runtime_config, self._runtime_cache = runtime_config, runtime_cache

    def save(self) -> None:
        """Write what was compiled; where it cannot be written the next process compiles again."""
        if hasattr(self._runtime_config, "create_runtime_cache"):
            memory = self._runtime_cache.serialize()
            content = b"" if memory is None else bytes(memory)
            if content not in (b"", self._kept):
                with suppress(OutputError):
                    write_atomically(self._path, content)
