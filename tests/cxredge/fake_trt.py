"""Made modules ``tensorrt`` and ``tensorrt_rtx`` on a made GPU; each has only what its version's API list names.

A plan is JSON. Its engine computes ``logit = -x - 0.2`` on the device's memory when its stream gets there.
The rules of TensorRT's manual are kept: a context given another shape spoils the graphs that were captured
from it, a shape that is new to a context cannot be captured at its first run, two contexts never work in one
activation memory at once, and contexts live in the primary context.
"""

from __future__ import annotations

import enum
import json
import threading
import weakref
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from .fake_gpu import PRIMARY, Failure, FakeGpu

API_LISTS = Path(__file__).parents[1] / "engine" / "tensorrt_api"
VERSIONS = {"10.3": "10.3.0.26", "10.16": "10.16.1.11", "11.4": "11.4.0.12", "rtx-1.7": "1.7.1.116"}
ACTIVATION_BYTES = 4096


class Severity(enum.Enum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class DataType(enum.Enum):
    FLOAT = 0
    HALF = 1


class TensorIOMode(enum.Enum):
    NONE = 0
    INPUT = 1
    OUTPUT = 2


class Strategy(enum.Enum):
    STATIC = 0
    ON_PROFILE_CHANGE = 1
    USER_MANAGED = 2


class CudaGraphStrategy(enum.Enum):
    DISABLED = 0
    WHOLE_GRAPH_CAPTURE = 1


class EngineValidity(enum.Enum):
    VALID = 0
    SUBOPTIMAL = 1
    INVALID = 2


def plan_bytes(size: int = 64, batches: tuple[int, ...] = (1, 4, 16), **changes: Any) -> bytes:
    """A plan that :class:`FakeTrt` can load."""
    shape = [-1, 1, size, size]
    return json.dumps({"input": shape, "output": shape, "batches": batches, "dtype": "FLOAT", **changes}).encode()


class FakeTrt:
    """The world that a made module belongs to: its GPU, what it was told to get wrong, and what it saw.

    Args:
        gpu: the device.
        version: one of :data:`VERSIONS`.
    """

    def __init__(self, gpu: FakeGpu, version: str = "10.16") -> None:
        self.gpu, self.version = gpu, version
        self.api = json.loads((API_LISTS / f"{version}.json").read_text())
        self.alive = 0
        self.enqueued = 0
        self.plain = 0
        self.compiled: list[int] = []
        self.refused_enqueues = 0
        self.refused_contexts = 0
        self.invalid = False
        self.uncapturable = False
        self.before_enqueue: Callable[[], None] = lambda: None
        self.strategies: list[CudaGraphStrategy] = []
        self.lock = threading.RLock()
        self.module = self.make_module()

    def limited(self, name: str, made: type) -> type:
        """``made`` with only those members that the version's class ``name`` has."""
        allowed = set(self.api[name][1:])
        for member in [one for one in vars(made) if not one.startswith("_") and one not in allowed]:
            delattr(made, member)
        return made

    def make_module(self) -> Any:
        module = SimpleNamespace(__version__=VERSIONS[self.version])
        enums = {
            "DataType": DataType,
            "TensorIOMode": TensorIOMode,
            "ExecutionContextAllocationStrategy": Strategy,
            "CudaGraphStrategy": CudaGraphStrategy,
            "EngineValidity": EngineValidity,
        }
        classes = {"ILogger": Logger, "Builder": object, "OnnxParser": object, "IProgressMonitor": object}
        made = {**enums, **classes, "Runtime": self.limited("Runtime", runtime_class(self))}
        for name, value in made.items():
            if name in self.api:
                setattr(module, name, value)
        return module

    def destroyed(self) -> None:
        """A context's memory is freed."""
        self.alive -= 1
        self.require_context("an execution context")

    def require_context(self, what: str) -> None:
        """Note where ``what`` is destroyed outside of the primary context."""
        if self.gpu.lost is None and (not self.gpu.stack or self.gpu.stack[-1] != PRIMARY or not self.gpu.retained):
            self.gpu.violations.append(f"{what} destroyed outside of the primary context")


class Logger:
    """``ILogger``."""

    def log(self, severity: Severity, message: str) -> None:
        raise NotImplementedError


def runtime_class(world: FakeTrt) -> type:
    class Runtime:
        def __init__(self, logger: Logger) -> None:
            assert world.gpu.stack[-1:] == [PRIMARY], "TensorRT outside of the primary context"
            self._log = logger

        def get_engine_validity(self, content: bytes) -> tuple[EngineValidity, int]:
            return (EngineValidity.INVALID, 4) if world.invalid else (EngineValidity.VALID, 0)

        def deserialize_cuda_engine(self, content: bytes) -> Any:
            try:
                plan = json.loads(content)
            except ValueError:
                self._log.log(Severity.ERROR, "the serialized plan file is not a plan file")
                return None
            engine = world.limited("ICudaEngine", engine_class(world))(plan, self._log)
            weakref.finalize(engine, world.require_context, "an engine")
            return engine

    return Runtime


def engine_class(world: FakeTrt) -> type:
    class ICudaEngine:
        def __init__(self, plan: dict[str, Any], logger: Logger) -> None:
            self._plan, self._log = plan, logger

        @property
        def num_io_tensors(self) -> int:
            return 2

        @property
        def device_memory_size_v2(self) -> int:
            return ACTIVATION_BYTES

        def get_tensor_name(self, index: int) -> str:
            return ("logits", "radiograph")[index]

        def get_tensor_mode(self, name: str) -> TensorIOMode:
            return TensorIOMode.INPUT if name == "radiograph" else TensorIOMode.OUTPUT

        def get_tensor_dtype(self, name: str) -> DataType:
            return DataType[self._plan["dtype"]]

        def get_tensor_shape(self, name: str) -> list[int]:
            shape: list[int] = self._plan["input" if name == "radiograph" else "output"]
            return shape

        def get_tensor_profile_shape(self, name: str, profile: int) -> list[list[int]]:
            assert profile == 0
            return [[batch, *self._plan["input"][1:]] for batch in self._plan["batches"]]

        def create_runtime_config(self) -> Any:
            return world.limited("IRuntimeConfig", config_class(world))()

        def create_execution_context(self, how: Any = Strategy.STATIC) -> Any:
            with world.lock:
                if world.refused_contexts:
                    world.refused_contexts -= 1
                    self._log.log(Severity.ERROR, "no room for a context")
                    return None
                strategy = how if isinstance(how, Strategy) else Strategy.STATIC
                context = world.limited("IExecutionContext", context_class(world))(self._plan, self._log, strategy)
                context._config = None if isinstance(how, Strategy) else how
                world.alive += 1
                weakref.finalize(context, world.destroyed)
                return context

    return ICudaEngine


def config_class(world: FakeTrt) -> type:
    class IRuntimeConfig:
        _strategy, _cache = CudaGraphStrategy.DISABLED, None

        @property
        def cuda_graph_strategy(self) -> CudaGraphStrategy:
            return self._strategy

        @cuda_graph_strategy.setter
        def cuda_graph_strategy(self, strategy: CudaGraphStrategy) -> None:
            self._strategy = strategy
            world.strategies.append(strategy)

        def create_runtime_cache(self) -> Any:
            return world.limited("IRuntimeCache", RuntimeCache)()

        def set_runtime_cache(self, cache: Any) -> bool:
            self._cache = cache
            return True

    return IRuntimeConfig


class RuntimeCache:
    """``IRuntimeCache``: the batch sizes that kernels were compiled for."""

    def __init__(self) -> None:
        self._kernels: set[int] = set()

    def deserialize(self, content: bytes) -> bool:
        try:
            self._kernels = set(json.loads(content))
        except ValueError:
            return False
        return True

    def serialize(self) -> bytes:
        return json.dumps(sorted(self._kernels)).encode()


def context_class(world: FakeTrt) -> type:
    gpu = world.gpu

    class IExecutionContext:
        def __init__(self, plan: dict[str, Any], logger: Logger, strategy: Strategy) -> None:
            self._plan, self._log = plan, logger
            self._addresses: dict[str, int] = {}
            self._activations = 0 if strategy is Strategy.USER_MANAGED else -1
            self._shape: tuple[int, ...] = ()
            self._warm: tuple[int, ...] = ()
            self._config: Any = None

        def set_device_memory(self, memory: int, size: int) -> None:
            assert size >= ACTIVATION_BYTES
            gpu.device(memory, size)
            self._activations = memory

        def set_tensor_address(self, name: str, memory: int) -> bool:
            self._addresses[name] = memory
            return memory in gpu.memory

        def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
            smallest, _, largest = self._plan["batches"]
            if list(shape[1:]) != self._plan["input"][1:] or not smallest <= shape[0] <= largest:
                self._log.log(Severity.ERROR, f"set_input_shape: {shape} is outside of the profile")
                return False
            self._shape = shape
            return True

        def execute_async_v3(self, stream_handle: int) -> bool:
            world.before_enqueue()
            with world.lock:
                if world.refused_enqueues or gpu.lost or not self._shape or self._activations == 0:
                    world.refused_enqueues = max(0, world.refused_enqueues - 1)
                    self._log.log(Severity.ERROR, "enqueueV3: made to fail")
                    return False
                if gpu.stack[-1:] != [PRIMARY]:
                    gpu.violations.append("enqueued outside of the primary context")
                self._enqueue(stream_handle)
                return True

        def _enqueue(self, stream_handle: int) -> None:
            stream = gpu.streams[stream_handle]
            capturing = stream.captured is not None
            if capturing and (world.uncapturable or self._warm != self._shape):
                stream.invalidated = True
            self._warm = self._shape
            world.enqueued += 1
            world.plain += not capturing
            self._compile()
            shape, addresses, activations = self._shape, dict(self._addresses), self._activations
            this = weakref.ref(self)

            def work() -> None:
                context = this()
                if capturing and (context is None or context._shape != shape):
                    gpu.violations.append("a graph was launched whose context had changed")
                compute(gpu, shape, addresses, activations)

            gpu.enqueue(stream_handle, work)

        def _compile(self) -> None:
            cache = getattr(self._config, "_cache", None)
            if cache is not None and self._shape[0] not in cache._kernels:
                cache._kernels.add(self._shape[0])
                world.compiled.append(self._shape[0])

    return IExecutionContext


def compute(gpu: FakeGpu, shape: tuple[int, ...], addresses: dict[str, int], activations: int) -> None:
    """The kernels."""
    count = 4 * int(np.prod(shape))
    if activations > 0:
        gpu.device(activations, ACTIVATION_BYTES)[:] = 0
    if gpu.lost is not None:
        raise Failure(gpu.lost)
    inputs = gpu.device(addresses["radiograph"], count).view(np.float32)
    gpu.device(addresses["logits"], count).view(np.float32)[:] = -inputs - np.float32(0.2)
