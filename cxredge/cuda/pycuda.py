"""The seam over PyCUDA.

PyCUDA keeps its own stack of contexts beside the driver's and frees a resource only where the resource's
context is current on that stack: :func:`cxredge.cuda.current` makes it so in any thread.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pycuda.driver as cuda
from numpy.typing import NDArray

from cxredge.cuda.errors import CudaError

FIRST = 0
NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING."""
REASON = re.compile(r"failed: (.*?)(?: - |$)")
"""The driver's text in PyCUDA's message: ``cuMemAlloc failed: out of memory``."""
CODES = {
    "a PTX JIT compilation failed": "INVALID_PTX",
    "an illegal instruction was encountered": "ILLEGAL_INSTRUCTION",
    "an illegal memory access was encountered": "ILLEGAL_ADDRESS",
    "context is destroyed": "CONTEXT_IS_DESTROYED",
    "device-side assert triggered": "ASSERT",
    "driver shutting down": "DEINITIALIZED",
    "hardware stack error": "HARDWARE_STACK_ERROR",
    "initialization error": "NOT_INITIALIZED",
    "invalid argument": "INVALID_VALUE",
    "invalid device context": "INVALID_CONTEXT",
    "invalid device ordinal": "INVALID_DEVICE",
    "invalid program counter": "INVALID_PC",
    "invalid resource handle": "INVALID_HANDLE",
    "misaligned address": "MISALIGNED_ADDRESS",
    "no CUDA-capable device is detected": "NO_DEVICE",
    "operation not permitted when stream is capturing": "STREAM_CAPTURE_UNSUPPORTED",
    "out of memory": "OUT_OF_MEMORY",
    "the launch timed out and was terminated": "LAUNCH_TIMEOUT",
    "uncorrectable ECC error encountered": "ECC_UNCORRECTABLE",
    "uncorrectable NVLink error detected during the execution": "NVLINK_UNCORRECTABLE",
    "unknown error": "UNKNOWN",
    "unspecified launch failure": "LAUNCH_FAILED",
    "CUDA-capable device(s) is/are busy or unavailable": "DEVICE_UNAVAILABLE",
}
"""Names of errors by the texts of ``cuGetErrorString``, which are all that PyCUDA passes on."""


def error_of(error: Exception, doing: str) -> CudaError:
    """PyCUDA's error as ours."""
    match = REASON.search(str(error))
    reason = match[1] if match else str(error)
    code = CODES.get(reason)
    return CudaError(f"CUDA_ERROR_{code}" if code else f"CUDA error ({reason})", doing)


@contextmanager
def translated(doing: str) -> Iterator[None]:
    """Raise PyCUDA's errors as :class:`CudaError`."""
    try:
        yield
    except cuda.Error as error:
        raise error_of(error, doing) from error


def open_driver() -> PycudaDriver:
    """The first GPU through PyCUDA.

    Raises:
        CudaError: its context cannot be had.
    """
    with translated("starting CUDA"):
        cuda.init()
        return PycudaDriver(cuda.Device(FIRST).retain_primary_context())


class PycudaDriver:
    """See :class:`cxredge.cuda.Driver`."""

    name = "pycuda"

    def __init__(self, context: Any) -> None:
        self._context: Any = context
        self._memory: dict[int, Any] = {}
        self._streams: dict[int, Any] = {}
        self._events: dict[int, Any] = {}

    def push(self) -> None:
        with translated("making the GPU's context current"):
            self._context.push()

    def pop(self) -> None:
        with translated("leaving the GPU's context"):
            cuda.Context.pop()

    def allocate(self, count: int) -> int:
        with translated(f"allocating {count} bytes on the GPU"):
            allocation = cuda.mem_alloc(count)
        self._memory[int(allocation)] = allocation
        return int(allocation)

    def free(self, address: int) -> None:
        with translated("freeing GPU memory"):
            self._memory.pop(address).free()

    def allocate_pinned(self, count: int) -> NDArray[np.uint8]:
        with translated(f"allocating {count} page-locked bytes"):
            array: NDArray[np.uint8] = cuda.pagelocked_empty(count, np.uint8)
        return array

    def free_pinned(self, array: NDArray[np.uint8]) -> None:
        owner: Any = array.base
        with translated("freeing page-locked memory"):
            owner.free()

    def create_stream(self) -> int:
        with translated("making a stream"):
            stream = cuda.Stream(NON_BLOCKING)
        self._streams[int(stream.handle)] = stream
        return int(stream.handle)

    def destroy_stream(self, stream: int) -> None:
        with translated("destroying a stream"):
            del self._streams[stream]

    def synchronize(self, stream: int) -> None:
        with translated("inference on the GPU"):
            self._streams[stream].synchronize()

    def upload(self, address: int, array: NDArray[Any], stream: int) -> None:
        with translated("copying to the GPU"):
            cuda.memcpy_htod_async(address, array, self._streams[stream])

    def download(self, array: NDArray[Any], address: int, stream: int) -> None:
        with translated("copying from the GPU"):
            cuda.memcpy_dtoh_async(array, address, self._streams[stream])

    def create_event(self) -> int:
        with translated("making an event"):
            event = cuda.Event()
        self._events[id(event)] = event
        return id(event)

    def destroy_event(self, event: int) -> None:
        with translated("destroying an event"):
            del self._events[event]

    def record(self, event: int, stream: int) -> None:
        with translated("recording an event"):
            self._events[event].record(self._streams[stream])

    def milliseconds(self, start: int, end: int) -> float:
        with translated("reading a time"):
            return float(self._events[end].time_since(self._events[start]))

    def memory(self) -> tuple[int, int]:
        with translated("asking for the GPU's memory"):
            free, total = cuda.mem_get_info()
        return int(free), int(total)

    def close(self) -> None:
        """As :meth:`cxredge.cuda.Driver.close`.

        PyCUDA leaves a context that it detaches on the thread's stack of the driver; it is detached in a thread
        of its own, with which that stack ends.
        """
        context, self._context = self._context, None
        if context is None:
            return
        failed: list[CudaError] = []

        def detach() -> None:
            try:
                context.push()
                context.detach()
            except cuda.Error as error:
                failed.append(error_of(error, "releasing the GPU's context"))

        thread = threading.Thread(target=detach, name="cxredge release")
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
