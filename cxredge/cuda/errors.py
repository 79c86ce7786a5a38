"""What went wrong in CUDA, by the driver's own name for it, and what to do about it."""

from __future__ import annotations

from cxredge.errors import BackendError

OUT_OF_MEMORY = "CUDA_ERROR_OUT_OF_MEMORY"
LOST = frozenset(
    f"CUDA_ERROR_{name}"
    for name in (
        "ASSERT",
        "CONTEXT_IS_DESTROYED",
        "DEINITIALIZED",
        "ECC_UNCORRECTABLE",
        "EXTERNAL_DEVICE",
        "HARDWARE_STACK_ERROR",
        "ILLEGAL_ADDRESS",
        "ILLEGAL_INSTRUCTION",
        "INVALID_ADDRESS_SPACE",
        "INVALID_PC",
        "LAUNCH_FAILED",
        "LAUNCH_TIMEOUT",
        "MISALIGNED_ADDRESS",
        "MPS_CLIENT_TERMINATED",
        "NVLINK_UNCORRECTABLE",
        "SYSTEM_NOT_READY",
        "UNKNOWN",
    )
)
"""Errors after which nothing works any more in this process."""
REMEDIES = {
    OUT_OF_MEMORY: "close other programs on the GPU, or build an engine with a smaller largest batch",
    "CUDA_ERROR_NO_DEVICE": "there is no GPU that this process may use; look at 'nvidia-smi' and CUDA_VISIBLE_DEVICES",
    "CUDA_ERROR_DEVICE_UNAVAILABLE": "another process has the GPU to itself; look at its compute mode in 'nvidia-smi'",
    "CUDA_ERROR_INVALID_DEVICE": "look at 'nvidia-smi' and CUDA_VISIBLE_DEVICES",
    "CUDA_ERROR_SYSTEM_DRIVER_MISMATCH": "the driver was updated while the system ran; restart it",
    "CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE": "update the NVIDIA driver",
    "CUDA_ERROR_STUB_LIBRARY": "the stub of the CUDA toolkit was loaded in place of the driver's libcuda",
}
REMEDY_WHEN_LOST = (
    "the GPU is lost to this process: start it again, and look at 'nvidia-smi' and the kernel's log (Xid)"
)
OTHER_REMEDY = "look at 'nvidia-smi'"


class CudaError(BackendError):
    """A call to CUDA failed.

    Args:
        code: the driver's name of the error, as ``CUDA_ERROR_OUT_OF_MEMORY``.
        doing: what was being done.
    """

    def __init__(self, code: str, doing: str) -> None:
        remedy = REMEDY_WHEN_LOST if code in LOST else REMEDIES.get(code, OTHER_REMEDY)
        super().__init__(f"{doing} failed: {code}; {remedy}")
        self.code = code

    @property
    def lost(self) -> bool:
        """Whether nothing works any more in this process."""
        return self.code in LOST
