"""A made GPU: what ``cuda.bindings.driver`` and ``pycuda.driver`` do, modelled in host memory, strictly.

Work in a stream is done when the stream is waited for and not before, so that a missing wait shows. Every
call checks that the primary context is current in its thread, freed memory is remembered, a lost device
stays lost, and any function can be told to fail at its n-th call.
"""

from __future__ import annotations

import enum
import functools
import itertools
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from cxredge.engine.device import Device


class CUresult(enum.IntEnum):
    """Values as in cuda.h."""

    CUDA_SUCCESS = 0
    CUDA_ERROR_INVALID_VALUE = 1
    CUDA_ERROR_OUT_OF_MEMORY = 2
    CUDA_ERROR_NO_DEVICE = 100
    CUDA_ERROR_INVALID_CONTEXT = 201
    CUDA_ERROR_INVALID_HANDLE = 400
    CUDA_ERROR_ILLEGAL_ADDRESS = 700
    CUDA_ERROR_LAUNCH_FAILED = 719
    CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED = 900
    CUDA_ERROR_STREAM_CAPTURE_INVALIDATED = 901


TEXTS = {
    "CUDA_ERROR_OUT_OF_MEMORY": "out of memory",
    "CUDA_ERROR_NO_DEVICE": "no CUDA-capable device is detected",
    "CUDA_ERROR_INVALID_VALUE": "invalid argument",
    "CUDA_ERROR_INVALID_CONTEXT": "invalid device context",
    "CUDA_ERROR_INVALID_HANDLE": "invalid resource handle",
    "CUDA_ERROR_ILLEGAL_ADDRESS": "an illegal memory access was encountered",
    "CUDA_ERROR_LAUNCH_FAILED": "unspecified launch failure",
}
"""Of ``cuGetErrorString``."""
PRIMARY = 0x1000
DEVICE = Device("NVIDIA GeForce RTX 4090", "8.9", "580.65.06", 24 << 30)


class Failure(Exception):
    """A call's error, before it becomes a return value or an exception of PyCUDA."""

    def __init__(self, code: CUresult) -> None:
        super().__init__(code.name)
        self.code = code


@dataclass
class FakeStream:
    """Work that is not done yet, or that is being captured."""

    pending: list[Callable[[], None]] = field(default_factory=list)
    captured: list[Callable[[], None]] | None = None
    invalidated: bool = False


class FakeGpu:
    """The device.

    Args:
        total: bytes of memory.
    """

    def __init__(self, total: int = 1 << 30) -> None:
        self.total = total
        self.memory: dict[int, np.ndarray] = {}
        self.pinned: dict[int, np.ndarray] = {}
        self.streams: dict[int, FakeStream] = {}
        self.events: dict[int, float | None] = {}
        self.graphs: dict[int, list[Callable[[], None]]] = {}
        self.executables: dict[int, list[Callable[[], None]]] = {}
        self.retained = 0
        self.lost: CUresult | None = None
        self.calls: Counter[str] = Counter()
        self.faults: dict[str, tuple[int, CUresult]] = {}
        self.violations: list[str] = []
        self.lock = threading.RLock()
        self._stacks = threading.local()
        self._handles = itertools.count(0x2000, 0x100)
        self._addresses = itertools.count(1, 1)
        self._clock = itertools.count(1)

    @property
    def stack(self) -> list[int]:
        """Contexts of this thread, the current one last."""
        if not hasattr(self._stacks, "contexts"):
            self._stacks.contexts = []
        contexts: list[int] = self._stacks.contexts
        return contexts

    @property
    def used(self) -> int:
        return sum(array.nbytes for array in self.memory.values())

    def live(self) -> dict[str, int]:
        """How much there is of everything that has to be given back."""
        kinds = ("memory", "pinned", "streams", "events", "graphs", "executables")
        return {**{kind: len(getattr(self, kind)) for kind in kinds}, "retained": self.retained}

    def fail(self, function: str, code: CUresult, nth: int = 1) -> None:
        """Let a function fail at its n-th call from now on."""
        self.faults[function] = (self.calls[function] + nth, code)

    def lose(self, code: CUresult = CUresult.CUDA_ERROR_LAUNCH_FAILED) -> None:
        self.lost = code

    def enter(self, function: str, *, needs_context: bool = True) -> None:
        """What every call begins with."""
        self.calls[function] += 1
        at, code = self.faults.get(function, (0, CUresult.CUDA_SUCCESS))
        if self.calls[function] == at:
            raise Failure(code)
        if self.lost is not None and function != "cuCtxPopCurrent":
            raise Failure(self.lost)
        if needs_context and (not self.stack or self.stack[-1] != PRIMARY):
            self.violations.append(f"{function} without the primary context")
            raise Failure(CUresult.CUDA_ERROR_INVALID_CONTEXT)
        if needs_context and not self.retained:
            self.violations.append(f"{function} in a context that was released")
            raise Failure(CUresult.CUDA_ERROR_INVALID_CONTEXT)

    def handle(self) -> int:
        return next(self._handles)

    def allocate(self, count: int) -> int:
        if count <= 0:
            raise Failure(CUresult.CUDA_ERROR_INVALID_VALUE)
        if self.used + count > self.total:
            raise Failure(CUresult.CUDA_ERROR_OUT_OF_MEMORY)
        address = 0x7F0000000000 + (next(self._addresses) << 28)
        self.memory[address] = np.full(count, 0xAB, np.uint8)
        return address

    def take(self, kind: dict[int, Any], handle: int) -> Any:
        """Remove and give an object; one that is not there is an error."""
        if int(handle) not in kind:
            self.violations.append(f"{hex(handle)} freed twice or never made")
            raise Failure(CUresult.CUDA_ERROR_INVALID_HANDLE)
        return kind.pop(int(handle))

    def device(self, address: int, count: int) -> np.ndarray:
        """Device memory as a kernel sees it; one that is freed or too small loses the device."""
        array = self.memory.get(int(address))
        if array is None or array.nbytes < count:
            self.lost = CUresult.CUDA_ERROR_ILLEGAL_ADDRESS
            raise Failure(self.lost)
        return array[:count]

    def host(self, address: int, count: int) -> np.ndarray:
        """Page-locked memory, whole or a part from its beginning."""
        array = self.pinned.get(int(address))
        if array is None or array.nbytes < count:
            self.violations.append("an asynchronous copy with memory that is not page-locked")
            raise Failure(CUresult.CUDA_ERROR_INVALID_VALUE)
        return array[:count]

    def enqueue(self, stream: int, work: Callable[[], None]) -> None:
        """Put work into a stream, or into the graph that is captured from it."""
        if int(stream) not in self.streams:
            raise Failure(CUresult.CUDA_ERROR_INVALID_HANDLE)
        found = self.streams[int(stream)]
        (found.pending if found.captured is None else found.captured).append(work)

    def synchronize(self, stream: int) -> None:
        """Do all work of a stream, in its order."""
        found = self.streams[int(stream)]
        if found.captured is not None:
            found.invalidated = True
            raise Failure(CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED)
        while found.pending:
            found.pending.pop(0)()
        if self.lost is not None:
            raise Failure(self.lost)

    def tick(self) -> float:
        return float(next(self._clock))


class FakeBindings:
    """The module ``cuda.bindings.driver`` of a :class:`FakeGpu`."""

    class CUstreamCaptureMode(enum.IntEnum):
        CU_STREAM_CAPTURE_MODE_THREAD_LOCAL = 1

    CUresult = CUresult

    def __init__(self, gpu: FakeGpu) -> None:
        self._gpu = gpu

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("cu"):
            return object.__getattribute__(self, name)
        function = object.__getattribute__(self, name)
        gpu: FakeGpu = self._gpu
        needs_context = name not in WITHOUT_CONTEXT

        @functools.wraps(function)
        def call(*arguments: Any) -> tuple[Any, ...]:
            with gpu.lock:
                try:
                    gpu.enter(name, needs_context=needs_context)
                    value = function(*arguments)
                except Failure as failure:
                    return (failure.code, None) if name in GIVING else (failure.code,)
            return (CUresult.CUDA_SUCCESS, *(value if isinstance(value, tuple) else (value,) if name in GIVING else ()))

        return call

    def cuInit(self, Flags: int) -> None: ...

    def cuDeviceGet(self, ordinal: int) -> int:
        return ordinal

    def cuDevicePrimaryCtxRetain(self, dev: int) -> int:
        self._gpu.retained += 1
        return PRIMARY

    def cuDevicePrimaryCtxRelease(self, dev: int) -> None:
        self._gpu.retained -= 1

    def cuCtxPushCurrent(self, ctx: int) -> None:
        self._gpu.stack.append(ctx)

    def cuCtxPopCurrent(self) -> int:
        if self._gpu.lost is not None and self._gpu.stack:
            self._gpu.stack.pop()  # it is done, and tells the error of what was launched before
            raise Failure(self._gpu.lost)
        if not self._gpu.stack:
            raise Failure(CUresult.CUDA_ERROR_INVALID_CONTEXT)
        return self._gpu.stack.pop()

    def cuMemAlloc(self, bytesize: int) -> int:
        return self._gpu.allocate(bytesize)

    def cuMemFree(self, dptr: int) -> None:
        self._gpu.take(self._gpu.memory, dptr)

    def cuMemHostAlloc(self, bytesize: int, Flags: int) -> int:
        array = np.full(bytesize, 0xCD, np.uint8)
        self._gpu.pinned[array.ctypes.data] = array
        return array.ctypes.data

    def cuMemFreeHost(self, p: int) -> None:
        self._gpu.take(self._gpu.pinned, p)

    def cuMemGetInfo(self) -> tuple[int, int]:
        return self._gpu.total - self._gpu.used, self._gpu.total

    def cuMemcpyHtoDAsync(self, dstDevice: int, srcHost: int, ByteCount: int, hStream: int) -> None:
        gpu, source = self._gpu, self._gpu.host(srcHost, ByteCount)
        gpu.enqueue(hStream, lambda: np.copyto(gpu.device(dstDevice, ByteCount), source))

    def cuMemcpyDtoHAsync(self, dstHost: int, srcDevice: int, ByteCount: int, hStream: int) -> None:
        gpu, target = self._gpu, self._gpu.host(dstHost, ByteCount)
        gpu.enqueue(hStream, lambda: np.copyto(target, gpu.device(srcDevice, ByteCount)))

    def cuStreamCreate(self, Flags: int) -> int:
        handle = self._gpu.handle()
        self._gpu.streams[handle] = FakeStream()
        return handle

    def cuStreamDestroy(self, hStream: int) -> None:
        self._gpu.take(self._gpu.streams, hStream)

    def cuStreamSynchronize(self, hStream: int) -> None:
        self._gpu.synchronize(hStream)

    def cuEventCreate(self, Flags: int) -> int:
        handle = self._gpu.handle()
        self._gpu.events[handle] = None
        return handle

    def cuEventDestroy(self, hEvent: int) -> None:
        self._gpu.take(self._gpu.events, hEvent)

    def cuEventRecord(self, hEvent: int, hStream: int) -> None:
        gpu = self._gpu
        gpu.events[hEvent] = None
        gpu.enqueue(hStream, lambda: gpu.events.update({hEvent: gpu.tick()}))

    def cuEventElapsedTime(self, hStart: int, hEnd: int) -> float:
        start, end = self._gpu.events[hStart], self._gpu.events[hEnd]
        if start is None or end is None:
            raise Failure(CUresult.CUDA_ERROR_INVALID_HANDLE)
        return end - start

    def cuStreamBeginCapture(self, hStream: int, mode: Any) -> None:
        stream = self._gpu.streams[hStream]
        stream.captured, stream.invalidated = [], False

    def cuStreamEndCapture(self, hStream: int) -> int:
        stream = self._gpu.streams[hStream]
        work, stream.captured = stream.captured, None
        if stream.invalidated or work is None:
            raise Failure(CUresult.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED)
        handle = self._gpu.handle()
        self._gpu.graphs[handle] = work
        return handle

    def cuGraphInstantiate(self, hGraph: int, flags: int) -> int:
        handle = self._gpu.handle()
        self._gpu.executables[handle] = list(self._gpu.graphs[hGraph])
        return handle

    def cuGraphDestroy(self, hGraph: int) -> None:
        self._gpu.take(self._gpu.graphs, hGraph)

    def cuGraphLaunch(self, hGraphExec: int, hStream: int) -> None:
        for work in self._gpu.executables[hGraphExec]:
            self._gpu.enqueue(hStream, work)

    def cuGraphExecDestroy(self, hGraphExec: int) -> None:
        self._gpu.take(self._gpu.executables, hGraphExec)


WITHOUT_CONTEXT = {
    "cuInit",
    "cuDeviceGet",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease",
    "cuCtxPushCurrent",
    "cuCtxPopCurrent",
}
GIVING = {
    "cuDeviceGet",
    "cuDevicePrimaryCtxRetain",
    "cuCtxPopCurrent",
    "cuMemAlloc",
    "cuMemHostAlloc",
    "cuMemGetInfo",
    "cuStreamCreate",
    "cuEventCreate",
    "cuEventElapsedTime",
    "cuStreamEndCapture",
    "cuGraphInstantiate",
}
"""Functions that give a value beside their error."""


@contextmanager
def host_context(gpu: FakeGpu, context: int = 0xBEEF) -> Iterator[None]:
    """The caller is a host application with a CUDA context of its own; it must find it as it was."""
    gpu.stack.append(context)
    yield
    assert gpu.stack.pop() == context
    assert gpu.stack == []


def made_module(name: str, **members: Any) -> ModuleType:
    """A module that ``find_spec`` finds."""
    module = ModuleType(name)
    module.__spec__ = ModuleSpec(name, None)
    for member, value in members.items():
        setattr(module, member, value)
    return module


def install(monkeypatch: pytest.MonkeyPatch, gpu: FakeGpu, *libraries: str) -> None:
    """Let this machine have ``gpu``, and of PyCUDA and cuda-bindings only ``libraries``."""
    from .fake_pycuda import FakePycuda

    for name in ("cxredge.cuda.bindings", "cxredge.cuda.pycuda"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    for parent, child, driver in (("pycuda", "driver", FakePycuda), ("cuda.bindings", "driver", FakeBindings)):
        there = parent.split(".")[-1] in libraries
        made = driver(gpu)
        monkeypatch.setitem(sys.modules, parent, made_module(parent, driver=made) if there else None)
        monkeypatch.setitem(sys.modules, f"{parent}.{child}", made if there else None)
    monkeypatch.setitem(sys.modules, "cuda", made_module("cuda", bindings=sys.modules["cuda.bindings"]))
    monkeypatch.setattr("cxredge.cuda.require_device", lambda: DEVICE)
