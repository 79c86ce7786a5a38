"""The NVIDIA driver and its first GPU, asked through libcuda alone: no CUDA context, no TensorRT object.

Without a driver TensorRT may end the process instead of raising, so that this is always asked first.
"""

from __future__ import annotations

import ctypes
import sys
from dataclasses import dataclass
from typing import Any

from cxredge.errors import EngineError

DRIVER_LIBRARY = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
MANAGEMENT_LIBRARY = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
MAJOR, MINOR = 75, 76
"""CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR and _MINOR of cuda.h."""
LONGEST_NAME = 256
NO_DRIVER = (
    "there is no NVIDIA driver on this machine ({library} cannot be loaded); install one, "
    "or cross-build with tensorrt-rtx and --compute-capability"
)


@dataclass(frozen=True)
class Device:
    """The GPU that CUDA numbers 0, after ``CUDA_VISIBLE_DEVICES``.

    Attributes:
        name: as the driver gives it.
        compute_capability: as ``"8.9"``.
        driver: release of the driver, or the CUDA version that it offers where it does not tell.
        memory: bytes.
    """

    name: str
    compute_capability: str
    driver: str
    memory: int


def load_library(name: str) -> Any:
    """Load a shared library; the tests put a made driver here.

    Raises:
        OSError: there is none.
    """
    return ctypes.CDLL(name)


def find_device() -> Device | None:
    """The GPU, or ``None`` where there is no driver or no GPU."""
    try:
        return require_device()
    except EngineError:
        return None


def require_device() -> Device:
    """The GPU.

    Raises:
        EngineError: no driver, a driver that fails, or no GPU.
    """
    try:
        driver = load_library(DRIVER_LIBRARY)
    except OSError as error:
        raise EngineError(NO_DRIVER.format(library=DRIVER_LIBRARY)) from error
    call(driver, "cuInit", 0)
    count, handle = ctypes.c_int(), ctypes.c_int()
    call(driver, "cuDeviceGetCount", ctypes.byref(count))
    if count.value == 0:
        raise EngineError("the NVIDIA driver finds no GPU; look at 'nvidia-smi' and CUDA_VISIBLE_DEVICES")
    call(driver, "cuDeviceGet", ctypes.byref(handle), 0)
    name, memory = ctypes.create_string_buffer(LONGEST_NAME), ctypes.c_size_t()
    call(driver, "cuDeviceGetName", name, LONGEST_NAME, handle)
    call(driver, "cuDeviceTotalMem_v2", ctypes.byref(memory), handle)
    capability = f"{attribute(driver, MAJOR, handle)}.{attribute(driver, MINOR, handle)}"
    return Device(name.value.decode(errors="replace"), capability, driver_release(driver), memory.value)


def attribute(driver: Any, number: int, handle: ctypes.c_int) -> int:
    """An attribute of a device."""
    value = ctypes.c_int()
    call(driver, "cuDeviceGetAttribute", ctypes.byref(value), number, handle)
    return value.value


def driver_release(driver: Any) -> str:
    """Release of the driver as ``nvidia-smi`` shows it, or ``CUDA 13.0`` where its management library is absent."""
    text = ctypes.create_string_buffer(LONGEST_NAME)
    try:
        management = load_library(MANAGEMENT_LIBRARY)
    except OSError:
        management = None
    if management is not None and management.nvmlInit_v2() == 0:
        done = management.nvmlSystemGetDriverVersion(text, LONGEST_NAME)
        management.nvmlShutdown()
        if done == 0 and text.value:
            return text.value.decode(errors="replace")
    version = ctypes.c_int()
    call(driver, "cuDriverGetVersion", ctypes.byref(version))
    return f"CUDA {version.value // 1000}.{version.value % 1000 // 10}"


def call(driver: Any, name: str, *arguments: Any) -> None:
    """Call the driver.

    Raises:
        EngineError: it answers with an error.
    """
    code = getattr(driver, name)(*arguments)
    if code != 0:
        raise EngineError(f"the NVIDIA driver fails: {name} gives error {code}; look at 'nvidia-smi'")
