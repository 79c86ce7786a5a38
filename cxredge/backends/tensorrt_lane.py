"""One lane of an engine: a stream, page-locked and device buffers, and execution contexts that work on them.

Everything is allocated once, at the engine's largest batch. A batch size that comes again gets an execution
context of its own and a CUDA graph: a captured graph is only valid while its context stays as it was, so
that contexts are not given another shape afterwards. The contexts of a lane share one activation buffer,
since a lane runs one batch at a time.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cxredge.backends.tensorrt_engine import LoadedEngine
from cxredge.backends.tensorrt_log import forget_error, last_error
from cxredge.cuda import Driver
from cxredge.cuda.errors import CudaError
from cxredge.cuda.graphs import Graph, capture
from cxredge.errors import BackendError

LOGGER = logging.getLogger(__name__)
CAPTURED_AT = 2
"""Which run of a batch size captures its graph; a size that comes once is not worth one."""
MOST_GRAPHS = 8
"""Batch sizes of a lane that get a graph; others are enqueued plainly."""
STAGES = ("host_to_device", "compute", "device_to_host")


class Lane:
    """Runs one batch at a time; not safe to call from several threads at once. The GPU's context is current.

    Args:
        engine: what to run.
        driver: of the GPU.
        graphs: whether CUDA graphs are captured.

    Raises:
        BackendError: the GPU's memory does not suffice; what was taken is given back.
    """

    def __init__(self, engine: LoadedEngine, driver: Driver, *, graphs: bool) -> None:
        self._loaded, self._driver, self._graphs = engine, driver, graphs
        self._seen: Counter[int] = Counter()
        self._captured: dict[int, tuple[Execution, Graph]] = {}
        self.device_bytes = 0
        shape = (engine.largest, 1, engine.size, engine.size)
        with ExitStack() as taken:
            self._stream = driver.create_stream()
            taken.callback(driver.destroy_stream, self._stream)
            self._events: list[int] = []
            for _ in range(len(STAGES) + 1):  # a comprehension's cell would keep a lane that fails alive
                self._events.append(self._event(taken))
            self._input, self._output = self._pinned(shape, taken), self._pinned(shape, taken)
            self._device_input = self._device(self._input.nbytes, taken)
            self._device_output = self._device(self._output.nbytes, taken)
            needed = engine.contexts.activation_bytes
            self._activations = self._device(needed, taken) if needed else 0
            self._plain = self._execution()
            self.device_bytes += engine.contexts.own_bytes
            self._taken = taken.pop_all()

    def run(self, inputs: NDArray[np.float32], logits: NDArray[np.float32]) -> None:
        """Write lung logits ``(N, S, S)`` for ``(N, 1, S, S)``, N at most the largest batch.

        Raises:
            BackendError: CUDA or TensorRT failed.
        """
        self._run(inputs, logits)

    def timed_run(self, inputs: NDArray[np.float32], logits: NDArray[np.float32]) -> dict[str, float]:
        """As :meth:`run`; gives the milliseconds of each of :data:`STAGES`, as the GPU took them."""
        self._run(inputs, logits, timed=True)
        spans = zip(STAGES, self._events, self._events[1:], strict=False)
        return {stage: self._driver.milliseconds(start, end) for stage, start, end in spans}

    def _run(self, inputs: NDArray[np.float32], logits: NDArray[np.float32], *, timed: bool = False) -> None:
        count, driver, stream = len(inputs), self._driver, self._stream
        batch = max(count, self._loaded.smallest)
        self._input[:count] = inputs
        self._input[count:batch] = 0
        steps: tuple[Callable[[], None], ...] = (
            lambda: driver.upload(self._device_input, self._input[:batch], stream),
            lambda: self._enqueue(batch),
            lambda: driver.download(self._output[:batch], self._device_output, stream),
        )
        try:
            for step, event in zip(steps, self._events, strict=False):
                if timed:
                    driver.record(event, stream)
                step()
            if timed:
                driver.record(self._events[-1], stream)
            driver.synchronize(stream)
        except BackendError as error:
            self._settle(error)
            raise
        logits[:] = self._output[:count, 0]

    def _settle(self, error: BackendError) -> None:
        """Wait for what is still under way in the buffers; a lost GPU is the truer reason for ``error``."""
        try:
            self._driver.synchronize(self._stream)
        except CudaError as reason:
            if reason.lost and not (isinstance(error, CudaError) and error.lost):
                raise reason from error

    def _enqueue(self, batch: int) -> None:
        if self._is_due(batch):
            self._capture(batch)
        if batch in self._captured:
            self._captured[batch][1].launch(self._stream)
        else:
            self._plain.enqueue(batch, self._stream)

    def _is_due(self, batch: int) -> bool:
        """Whether it is time to capture the graph of a batch size, which is tried once."""
        if not self._graphs or batch in self._captured or len(self._captured) >= MOST_GRAPHS:
            return False
        self._seen[batch] += 1
        return self._seen[batch] == CAPTURED_AT

    def _capture(self, batch: int) -> None:
        """Make a context and a graph for one batch size; where that fails the size goes on being enqueued plainly."""
        try:
            execution = self._execution()
            execution.enqueue(batch, self._stream)  # what a first run does besides cannot be captured
            self._driver.synchronize(self._stream)
            graph = capture(lambda: execution.enqueue(batch, self._stream), self._stream)
        except BackendError as error:
            if isinstance(error, CudaError) and error.lost:
                raise
            LOGGER.info("no CUDA graph for batches of %d, which are enqueued plainly: %s", batch, str(error))
        else:
            self._captured[batch] = (execution, graph)

    def _execution(self) -> Execution:
        forget_error()
        context = self._loaded.contexts.make()
        if context is None:
            raise BackendError(f"TensorRT makes no execution context: {last_error()}")
        execution = Execution(context, self._loaded)
        execution.use(self._device_input, self._device_output, self._activations)
        return execution

    def _event(self, taken: ExitStack) -> int:
        event = self._driver.create_event()
        taken.callback(self._driver.destroy_event, event)
        return event

    def _device(self, count: int, taken: ExitStack) -> int:
        address = self._driver.allocate(count)
        taken.callback(self._driver.free, address)
        self.device_bytes += count
        return address

    def _pinned(self, shape: tuple[int, ...], taken: ExitStack) -> NDArray[np.float32]:
        memory = self._driver.allocate_pinned(math.prod(shape) * np.dtype(np.float32).itemsize)
        taken.callback(self._driver.free_pinned, memory)
        return memory.view(np.float32).reshape(shape)

    def close(self) -> None:
        """Give everything back; the lane is idle and not used afterwards.

        Raises:
            CudaError: something could not be given back; all else was.
        """
        with self._taken as closing:
            closing.callback(self._drop_contexts)
            for _, graph in self._captured.values():
                closing.callback(graph.close)

    def _drop_contexts(self) -> None:
        """Let go of everything of TensorRT, which then frees it."""
        self._captured.clear()
        del self._plain, self._loaded


class Execution:
    """An execution context that works on a lane's memory."""

    def __init__(self, context: Any, engine: LoadedEngine) -> None:
        self._context, self._loaded = context, engine
        self._batch = 0

    def use(self, device_input: int, device_output: int, activations: int) -> None:
        """Tell the context where its memory is.

        Raises:
            BackendError: TensorRT refuses.
        """
        engine = self._loaded
        needed = engine.contexts.activation_bytes
        if needed:
            self._context.set_device_memory(activations, needed)
        for name, address in ((engine.input, device_input), (engine.output, device_output)):
            forget_error()
            if not self._context.set_tensor_address(name, address):
                raise BackendError(f"TensorRT refuses the memory of {name}: {last_error()}")

    def enqueue(self, batch: int, stream: int) -> None:
        """Enqueue one batch.

        Raises:
            BackendError: TensorRT refuses the batch or cannot enqueue it.
        """
        engine = self._loaded
        forget_error()
        if batch != self._batch:
            self._batch = 0
            if not self._context.set_input_shape(engine.input, (batch, 1, engine.size, engine.size)):
                raise BackendError(f"TensorRT refuses a batch of {batch}: {last_error()}")
            self._batch = batch
        if not self._context.execute_async_v3(stream):
            raise BackendError(f"TensorRT cannot enqueue a batch of {batch}: {last_error()}")
