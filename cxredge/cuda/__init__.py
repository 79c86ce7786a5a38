"""CUDA as the runner needs it: the primary context, memory, streams and events of one GPU, and graphs.

A seam over two libraries: PyCUDA where it is installed, else ``cuda-bindings``. Addresses and handles are
plain numbers, so that TensorRT and both libraries understand them. The GPU's *primary* context is used and
is current only inside ``with current(driver)``: a host application keeps its own context, and its thread's
current context is afterwards what it was. Every failure is a :class:`~cxredge.cuda.errors.CudaError`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from cxredge.engine.device import require_device
from cxredge.errors import BackendError, EngineError, MissingExtraError

IMPLEMENTATIONS = (("pycuda", "cxredge.cuda.pycuda"), ("cuda.bindings", "cxredge.cuda.bindings"))
"""Libraries in the order of preference, and the modules that put them behind the seam."""


class Driver(Protocol):
    """One GPU; but for :meth:`push` and :meth:`close` everything is called with its context current."""

    name: str

    def push(self) -> None:
        """Make the primary context current in this thread."""
        ...

    def pop(self) -> None:
        """Make current what was current before :meth:`push`."""
        ...

    def allocate(self, count: int) -> int:
        """Address of ``count`` new bytes of device memory."""
        ...

    def free(self, address: int) -> None:
        """Give device memory back."""
        ...

    def allocate_pinned(self, count: int) -> NDArray[np.uint8]:
        """``count`` bytes of page-locked host memory; not to be used after :meth:`free_pinned`."""
        ...

    def free_pinned(self, array: NDArray[np.uint8]) -> None:
        """Give page-locked memory back; ``array`` is what :meth:`allocate_pinned` gave."""
        ...

    def create_stream(self) -> int:
        """Handle of a new stream, which does not wait for the default stream."""
        ...

    def destroy_stream(self, stream: int) -> None:
        """Destroy a stream."""
        ...

    def synchronize(self, stream: int) -> None:
        """Wait until everything in ``stream`` is done; raises what failed in it."""
        ...

    def upload(self, address: int, array: NDArray[Any], stream: int) -> None:
        """Copy a contiguous page-locked array to device memory, asynchronously."""
        ...

    def download(self, array: NDArray[Any], address: int, stream: int) -> None:
        """Copy device memory to a contiguous page-locked array, asynchronously."""
        ...

    def create_event(self) -> int:
        """Handle of a new event that takes the time."""
        ...

    def destroy_event(self, event: int) -> None:
        """Destroy an event."""
        ...

    def record(self, event: int, stream: int) -> None:
        """Put an event into a stream."""
        ...

    def milliseconds(self, start: int, end: int) -> float:
        """Time between two events that are done."""
        ...

    def memory(self) -> tuple[int, int]:
        """Free and total bytes of device memory."""
        ...

    def close(self) -> None:
        """Release the primary context; the caller does not have it current. Closing again does nothing."""
        ...


def open_driver() -> Driver:
    """The first GPU's primary context, retained; libcuda and the GPU are asked for before anything is made.

    Raises:
        BackendError: no driver, no GPU, or neither library can be used.
        MissingExtraError: neither library is installed.
    """
    try:
        require_device()
    except EngineError as error:
        raise BackendError(f"no engine can run here: {error}") from error
    problems = []
    for library, module in IMPLEMENTATIONS:
        if not installed(library):
            continue
        try:
            opener: Any = import_module(module).open_driver
        except (ImportError, OSError) as error:  # OSError: of a shared library
            problems.append(f"{library} cannot be loaded: {error}")
            continue
        driver: Driver = opener()
        return driver
    if problems:
        raise BackendError("; ".join(problems))
    raise MissingExtraError("running an engine", "tensorrt")


def installed(library: str) -> bool:
    """Whether a library can be found, without importing it."""
    try:
        return find_spec(library) is not None
    except (ModuleNotFoundError, ValueError):  # of its parent; or a module without a spec
        return False


@contextmanager
def current(driver: Driver) -> Iterator[None]:
    """Have the GPU's primary context current in this thread; the caller's own one is current again afterwards.

    Raises:
        CudaError: it cannot be made current.
    """
    driver.push()
    try:
        yield
    finally:
        driver.pop()
