"""The seam over ``cuda-bindings``, NVIDIA's own bindings of the driver (12.x and 13.x)."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np
from cuda.bindings import driver as cuda
from numpy.typing import NDArray

from cxredge.cuda.errors import CudaError

FIRST = 0
PORTABLE = 1
"""CU_MEMHOSTALLOC_PORTABLE: page-locked for every context."""
NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING."""
TIMING = 0
"""CU_EVENT_DEFAULT."""


def checked(result: tuple[Any, ...], doing: str) -> Any:
    """The value of a call, or its values.

    Args:
        result: what the call gave: its error, then its values.
        doing: for the message.

    Raises:
        CudaError: the call failed.
    """
    error, *values = result
    if error != cuda.CUresult.CUDA_SUCCESS:
        raise CudaError(error.name, doing)
    return values[0] if len(values) == 1 else tuple(values)


def open_driver() -> BindingsDriver:
    """The first GPU through ``cuda-bindings``.

    Raises:
        CudaError: its context cannot be had.
    """
    checked(cuda.cuInit(0), "starting CUDA")
    device = checked(cuda.cuDeviceGet(FIRST), "finding the GPU")
    return BindingsDriver(device, checked(cuda.cuDevicePrimaryCtxRetain(device), "retaining the GPU's context"))


class BindingsDriver:
    """See :class:`cxredge.cuda.Driver`."""

    name = "cuda-bindings"

    def __init__(self, device: Any, context: Any) -> None:
        self._device, self._context = device, context
        self._open = True

    def push(self) -> None:
        checked(cuda.cuCtxPushCurrent(self._context), "making the GPU's context current")

    def pop(self) -> None:
        checked(cuda.cuCtxPopCurrent(), "leaving the GPU's context")

    def allocate(self, count: int) -> int:
        return int(checked(cuda.cuMemAlloc(count), f"allocating {count} bytes on the GPU"))

    def free(self, address: int) -> None:
        checked(cuda.cuMemFree(address), "freeing GPU memory")

    def allocate_pinned(self, count: int) -> NDArray[np.uint8]:
        address = checked(cuda.cuMemHostAlloc(count, PORTABLE), f"allocating {count} page-locked bytes")
        return np.ctypeslib.as_array((ctypes.c_uint8 * count).from_address(int(address)))

    def free_pinned(self, array: NDArray[np.uint8]) -> None:
        checked(cuda.cuMemFreeHost(array.ctypes.data), "freeing page-locked memory")

    def create_stream(self) -> int:
        return int(checked(cuda.cuStreamCreate(NON_BLOCKING), "making a stream"))

    def destroy_stream(self, stream: int) -> None:
        checked(cuda.cuStreamDestroy(stream), "destroying a stream")

    def synchronize(self, stream: int) -> None:
        checked(cuda.cuStreamSynchronize(stream), "inference on the GPU")

    def upload(self, address: int, array: NDArray[Any], stream: int) -> None:
        checked(cuda.cuMemcpyHtoDAsync(address, array.ctypes.data, array.nbytes, stream), "copying to the GPU")

    def download(self, array: NDArray[Any], address: int, stream: int) -> None:
        checked(cuda.cuMemcpyDtoHAsync(array.ctypes.data, address, array.nbytes, stream), "copying from the GPU")

    def create_event(self) -> int:
        return int(checked(cuda.cuEventCreate(TIMING), "making an event"))

    def destroy_event(self, event: int) -> None:
        checked(cuda.cuEventDestroy(event), "destroying an event")

    def record(self, event: int, stream: int) -> None:
        checked(cuda.cuEventRecord(event, stream), "recording an event")

    def milliseconds(self, start: int, end: int) -> float:
        return float(checked(cuda.cuEventElapsedTime(start, end), "reading a time"))

    def memory(self) -> tuple[int, int]:
        free, total = checked(cuda.cuMemGetInfo(), "asking for the GPU's memory")
        return int(free), int(total)

    def close(self) -> None:
        if self._open:
            self._open = False
            checked(cuda.cuDevicePrimaryCtxRelease(self._device), "releasing the GPU's context")
