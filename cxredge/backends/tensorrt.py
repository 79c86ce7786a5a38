"""TensorRT and TensorRT for RTX on an NVIDIA GPU (extras ``tensorrt`` and ``rtx``).

An engine is a plan and its sidecar (:mod:`cxredge.engine`); the sidecar is checked against the installed
TensorRT and the GPU before any TensorRT object is made. Runs are spread over lanes, each with a stream and
buffers of its own, so that copying for one batch overlaps with computing another.
"""

from __future__ import annotations

import threading
import traceback
import weakref
from collections.abc import Callable
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from cxredge.backends import check_inputs
from cxredge.backends.lane_pool import LanePool
from cxredge.backends.tensorrt_engine import captures_itself, load_engine
from cxredge.backends.tensorrt_lane import CAPTURED_AT, STAGES, Lane
from cxredge.contract import Contract
from cxredge.cuda import Driver, current, open_driver
from cxredge.cuda.errors import CudaError
from cxredge.cuda.graphs import graphs_at_hand
from cxredge.engine.device import find_device
from cxredge.engine.fit import check
from cxredge.engine.flavour import Flavour, find_flavour
from cxredge.engine.machine import wanted_here
from cxredge.engine.record import EngineRecord, read_record, sidecar_path
from cxredge.errors import EngineError

Result = TypeVar("Result")
LANES = 2
PATIENCE = 60.0
"""Seconds that a thread waits for a lane."""


class TensorRTBackend:
    """An engine on this machine's GPU, in the GPU's primary context.

    Any thread may call it, with any or no CUDA context current; that context is current again afterwards.

    Args:
        plan: the plan file.
        record: its sidecar; ``None`` to read it from beside the plan.
        lanes: batches that run at once.
        graphs: whether CUDA graphs are used where they can be.
        patience: seconds that a call waits for a lane.
        opener: opens the GPU.

    Raises:
        EngineError: no such engine, or one that does not fit the installed TensorRT, the GPU or its sidecar.
        BackendError: no driver, no GPU, or not enough of its memory; what was taken is given back.
    """

    name = "tensorrt"

    def __init__(
        self,
        plan: Path,
        record: EngineRecord | None = None,
        *,
        lanes: int = LANES,
        graphs: bool = True,
        patience: float = PATIENCE,
        opener: Callable[[], Driver] = open_driver,
    ) -> None:
        self.record = read_record(sidecar_path(plan)) if record is None else record
        flavour = find_flavour("tensorrt" if self.record.flavour == "tensorrt" else "tensorrt-rtx")
        require_fit(plan, self.record, flavour)
        self.contract: Contract = self.record.read_contract()
        self.lanes = lanes
        with ExitStack() as taken:
            self._driver = opener()
            taken.callback(self._driver.close)
            with current(self._driver):
                try:
                    every, save = open_lanes(plan, flavour, self.record, self._driver, lanes, graphs=graphs)
                except BaseException as error:
                    # free what TensorRT made now, where the context is current, and not when the error is forgotten
                    traceback.clear_frames(error.__traceback__)
                    raise
            taken.pop_all()
        self._pool = LanePool(every, patience)
        self._warming = threading.Lock()
        self._health = Health()
        self._release = weakref.finalize(
            self, release, self._pool, self._driver, save, self._health
        )  # also when it is forgotten, or at the end of the process
        self._bytes = sum(lane.device_bytes for lane in every) + self.record.plan_bytes

    def run(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        """Lung logits ``(N, S, S)``; see :class:`cxredge.backends.Backend`. Large batches are run in parts."""
        logits = self._room_for(inputs)
        for part in self._parts(inputs):
            self._on_a_lane(Lane.run, inputs[part], logits[part])
        return logits

    def timed_run(self, inputs: NDArray[np.float32]) -> tuple[NDArray[np.float32], dict[str, float]]:
        """See :class:`cxredge.backends.StageTimed`; the times are the GPU's, without the wait for a lane."""
        logits = self._room_for(inputs)
        times = [self._on_a_lane(Lane.timed_run, inputs[part], logits[part]) for part in self._parts(inputs)]
        return logits, {stage: sum(one[stage] for one in times) for stage in STAGES}

    def warm_up(self, batch: int) -> None:
        """See :class:`cxredge.backends.Warmable`: every lane captures its graph of this batch size."""
        size = self.contract.input_size
        inputs = np.zeros((min(batch, self.record.batches[2]), 1, size, size), np.float32)
        logits = self._room_for(inputs)
        with self._warming, ExitStack() as held:
            for lane in [held.enter_context(self._pool.lane()) for _ in range(self.lanes)]:
                with current(self._driver):
                    for _ in range(CAPTURED_AT):
                        lane.run(inputs, logits)

    def device_bytes(self) -> int:
        """Bytes of device memory: the lanes' buffers and activations, and the plan, which is mostly weights."""
        return self._bytes

    def _room_for(self, inputs: NDArray[np.float32]) -> NDArray[np.float32]:
        check_inputs(inputs, self.contract)
        return np.empty((len(inputs), *inputs.shape[2:]), np.float32)

    def _parts(self, inputs: NDArray[np.float32]) -> list[slice]:
        largest = self.record.batches[2]
        return [slice(start, start + largest) for start in range(0, len(inputs), largest)]

    def _on_a_lane(
        self,
        work: Callable[[Lane, NDArray[np.float32], NDArray[np.float32]], Result],
        inputs: NDArray[np.float32],
        logits: NDArray[np.float32],
    ) -> Result:
        if self._health.lost:
            raise CudaError(self._health.lost, "inference on the GPU")
        try:
            with self._pool.lane() as lane, current(self._driver):
                return work(lane, inputs, logits)
        except CudaError as error:
            if error.lost:
                self._health.lost = error.code
            raise

    def close(self) -> None:
        """Wait for what runs, and free the engine; running afterwards is an error, closing again is not.

        Raises:
            CudaError: something could not be freed; of a GPU that is lost nothing has to be.
        """
        self._release()


def open_lanes(
    plan: Path, flavour: Flavour, record: EngineRecord, driver: Driver, count: int, *, graphs: bool
) -> tuple[list[Lane], Callable[[], None]]:
    """The lanes of an engine, and what keeps for the next process what they compile."""
    engine = load_engine(plan, flavour, record, graphs=graphs)
    captured = graphs and graphs_at_hand() and not captures_itself(flavour)
    lanes: list[Lane] = []
    with ExitStack() as made:
        for _ in range(count):
            lanes.append(Lane(engine, driver, graphs=captured))
            made.callback(lanes[-1].close)
        made.pop_all()
    return lanes, engine.contexts.save


@dataclass
class Health:
    """Whether the GPU is lost, and by which error."""

    lost: str = ""


def release(pool: LanePool[Lane], driver: Driver, save: Callable[[], None], health: Health) -> None:
    """Free everything that a backend holds, once nothing runs any more."""
    lanes = pool.close()
    with suppress(CudaError) if health.lost else nullcontext(), ExitStack() as closing:
        closing.callback(driver.close)
        closing.enter_context(current(driver))
        for lane in lanes:
            closing.callback(lane.close)
        closing.callback(save)


def require_fit(plan: Path, record: EngineRecord, flavour: Flavour) -> None:
    """Raise :class:`EngineError` where an engine cannot run here; no TensorRT object is made."""
    reasons = check(plan, record, wanted_here(flavour, find_device()))
    if reasons:
        raise EngineError(f"{plan}: cannot run here: {'; '.join(reasons)}; build it again with 'cxredge build-engine'")
