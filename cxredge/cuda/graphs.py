"""CUDA graphs, always through ``cuda-bindings``: PyCUDA has none, and the streams' handles are the driver's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cxredge.cuda import installed
from cxredge.cuda.errors import CudaError

INVALIDATED = "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"


def graphs_at_hand() -> bool:
    """Whether graphs can be captured at all."""
    return installed("cuda.bindings")


class Graph:
    """Captured work of one stream that is enqueued at once; made by :func:`capture`."""

    def __init__(self, executable: Any) -> None:
        self._executable = executable

    def launch(self, stream: int) -> None:
        """Enqueue the work.

        Raises:
            CudaError: it cannot be launched.
        """
        from cuda.bindings import driver as cuda

        from cxredge.cuda.bindings import checked

        checked(cuda.cuGraphLaunch(self._executable, stream), "launching a CUDA graph")

    def close(self) -> None:
        """Destroy the graph; no work of it is under way."""
        from cuda.bindings import driver as cuda

        from cxredge.cuda.bindings import checked

        checked(cuda.cuGraphExecDestroy(self._executable), "destroying a CUDA graph")


def capture(work: Callable[[], None], stream: int) -> Graph:
    """Capture what ``work`` enqueues in ``stream``, without running it; other threads go on meanwhile.

    Raises:
        CudaError: it cannot be captured; the stream can be used as before.
    """
    from cuda.bindings import driver as cuda

    from cxredge.cuda.bindings import checked

    mode = cuda.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
    checked(cuda.cuStreamBeginCapture(stream, mode), "beginning a CUDA graph")
    try:
        work()
    except BaseException:
        cuda.cuStreamEndCapture(stream)  # its error is that of the work
        raise
    graph = checked(cuda.cuStreamEndCapture(stream), "capturing a CUDA graph")
    if not int(graph):
        raise CudaError(INVALIDATED, "capturing a CUDA graph")
    try:
        return Graph(checked(cuda.cuGraphInstantiate(graph, 0), "making a CUDA graph"))
    finally:
        checked(cuda.cuGraphDestroy(graph), "destroying a CUDA graph")
