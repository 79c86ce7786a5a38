"""The module ``pycuda.driver`` of a made GPU, with PyCUDA's own rules about contexts.

PyCUDA keeps a stack of contexts for each thread beside the driver's, of which at most one is on the
driver's stack; an object can only be made and freed where its context is the top of PyCUDA's stack; a
primary context that is detached stays on the driver's stack.
"""

from __future__ import annotations

import threading
import weakref
from typing import Any

import numpy as np

from .fake_gpu import PRIMARY, TEXTS, FakeBindings, FakeGpu


class Error(Exception):
    """Base of PyCUDA's errors."""


class MemoryError(Error):
    """Out of memory."""


class FakePycuda:
    """The module."""

    Error, MemoryError = Error, MemoryError

    def __init__(self, gpu: FakeGpu) -> None:
        self.gpu, self.calls = gpu, FakeBindings(gpu)
        self._stacks = threading.local()
        module = self

        class Context:
            def __init__(self) -> None:
                self.valid = True

            def push(self) -> None:
                if module.stack:
                    module.call("cuCtxPopCurrent")
                module.call("cuCtxPushCurrent", PRIMARY)
                module.stack.append(self)

            @staticmethod
            def pop() -> None:
                if not module.stack:
                    raise Error("context::pop failed: invalid device context - cannot pop non-current context")
                module.call("cuCtxPopCurrent")
                module.stack.pop()
                if module.stack:
                    module.call("cuCtxPushCurrent", PRIMARY)

            def detach(self) -> None:
                assert module.stack, "PyCUDA would leak the context of another thread"
                assert module.stack[-1] is self, "PyCUDA would leak the context of another thread"
                module.call("cuDevicePrimaryCtxRelease", 0)
                self.valid = False
                module.stack.pop()

        class Device:
            def __init__(self, ordinal: int) -> None:
                module.call("cuDeviceGet", ordinal)

            def retain_primary_context(self) -> Context:
                module.call("cuDevicePrimaryCtxRetain", 0)
                return Context()

        class DeviceAllocation:
            def __init__(self, count: int) -> None:
                module.require_context()
                self.address = module.call("cuMemAlloc", count)

            def __int__(self) -> int:
                return int(self.address)

            def free(self) -> None:
                module.require_context()
                module.call("cuMemFree", self.address)

        class PagelockedHostAllocation:
            def __init__(self, count: int) -> None:
                self.address = module.call("cuMemHostAlloc", count, 0)
                self.__array_interface__ = module.gpu.pinned[self.address].__array_interface__

            def free(self) -> None:
                module.require_context()
                module.call("cuMemFreeHost", self.address)

        class Stream:
            def __init__(self, flags: int = 0) -> None:
                assert flags == 1, "a stream that waits for the default stream"
                module.require_context()
                self.handle = module.call("cuStreamCreate", flags)
                weakref.finalize(self, module.clean_up, "cuStreamDestroy", self.handle)

            def synchronize(self) -> None:
                module.call("cuStreamSynchronize", self.handle)

        class Event:
            def __init__(self) -> None:
                module.require_context()
                self.handle = module.call("cuEventCreate", 0)
                weakref.finalize(self, module.clean_up, "cuEventDestroy", self.handle)

            def record(self, stream: Stream) -> None:
                module.call("cuEventRecord", self.handle, stream.handle)

            def time_since(self, other: Event) -> float:
                return float(module.call("cuEventElapsedTime", other.handle, self.handle))

        self.Context, self.Device, self.Stream, self.Event = Context, Device, Stream, Event
        self.mem_alloc, self._pinned = DeviceAllocation, PagelockedHostAllocation

    @property
    def stack(self) -> list[Any]:
        """PyCUDA's contexts of this thread."""
        if not hasattr(self._stacks, "contexts"):
            self._stacks.contexts = []
        contexts: list[Any] = self._stacks.contexts
        return contexts

    def require_context(self) -> None:
        if not self.stack:
            raise Error("explicit_context_dependent failed: invalid device context - no currently active context?")

    def call(self, name: str, *arguments: Any) -> Any:
        """A call of the driver, whose error is raised as PyCUDA does it."""
        error, *values = getattr(self.calls, name)(*arguments)
        if error:
            kind = MemoryError if error.name == "CUDA_ERROR_OUT_OF_MEMORY" else Error
            raise kind(f"{name} failed: {TEXTS[error.name]}")
        return values[0] if len(values) == 1 else tuple(values)

    def clean_up(self, name: str, handle: int) -> None:
        """Of a destructor: errors are printed by PyCUDA and not raised."""
        if not self.stack:
            self.gpu.violations.append(f"{name} outside of the context")
        getattr(self.calls, name)(handle)

    def init(self) -> None:
        self.call("cuInit", 0)

    def pagelocked_empty(self, count: int, dtype: Any) -> np.ndarray:
        self.require_context()
        assert dtype == np.uint8
        owner = self._pinned(count)
        array = np.asarray(owner)
        assert array.base is owner
        return array

    def memcpy_htod_async(self, dest: int, src: np.ndarray, stream: Any) -> None:
        assert src.flags.c_contiguous
        self.call("cuMemcpyHtoDAsync", dest, src.ctypes.data, src.nbytes, stream.handle)

    def memcpy_dtoh_async(self, dest: np.ndarray, src: int, stream: Any) -> None:
        assert dest.flags.c_contiguous
        self.call("cuMemcpyDtoHAsync", dest.ctypes.data, src, dest.nbytes, stream.handle)

    def mem_get_info(self) -> tuple[int, int]:
        free, total = self.call("cuMemGetInfo")
        return free, total
