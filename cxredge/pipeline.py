"""Reading, inference and finishing of many radiographs, overlapped and in order.

Readers work ahead in a pool of threads, batches run on as many lanes as the backend has, and finishing
(post-processing, writing) goes back to the pool. A fixed number of batches is under way at once, and of
large items only as many as a budget admits, so memory stays bounded and a slow consumer slows the readers.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from cxredge.admission import Admission
from cxredge.errors import CxredgeError

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")
Logits = TypeVar("Logits")
Result = TypeVar("Result")

CORES_VARIABLE = "PYTHON_CPU_COUNT"
"""Environment variable with which Python 3.13 and later are told the number of cores too."""
BATCHES_WAITING = 4
"""Batches that are read ahead or being finished, for each lane."""


@dataclass(frozen=True)
class _Batch(Generic[Result]):
    """A batch under way: what it weighs, and the futures of its results or their errors."""

    cost: float
    results: Future[list[Future[Result] | CxredgeError]]


def run_pipeline(
    items: Iterable[Item],
    read: Callable[[Item], Prepared],
    infer: Callable[[list[Prepared]], list[Logits]],
    finish: Callable[[Item, Prepared, Logits], Result],
    *,
    batch_size: int,
    workers: int,
    lanes: int = 1,
    cost: Callable[[Item], float] | None = None,
    budget: float = float("inf"),
) -> Generator[Result | CxredgeError, None, None]:
    """Yield, for each item in order, ``finish(item, prepared, logits)`` or the error that stopped it.

    Args:
        items: read lazily.
        read: one item to what inference needs; runs in the pool.
        infer: one batch; runs on ``lanes`` threads.
        finish: one result; runs in the pool.
        batch_size: items in a batch, at least 1; fewer where the budget admits no more.
        workers: threads of the pool, at least 1.
        lanes: batches that run at once, at least 1.
        cost: what an item takes of the budget from before it is read until it is finished; runs in the pool.
            An item for which it raises a :class:`CxredgeError` is not read.
        budget: largest sum of the costs under way; an item that costs more alone runs alone.

    Yields:
        The result, or the :class:`CxredgeError` that ``cost``, ``read`` or ``finish`` raised for the item, or
        ``infer`` for its batch. Other exceptions are raised.
    """
    pool = ThreadPoolExecutor(workers, thread_name_prefix="cxredge-worker")
    device = ThreadPoolExecutor(lanes, thread_name_prefix="cxredge-device")

    def run_batch(batch: list[Item], reads: list[Future[Prepared]]) -> list[Future[Result] | CxredgeError]:
        outcomes: list[Prepared | CxredgeError] = [_outcome(future) for future in reads]
        prepared = [outcome for outcome in outcomes if not isinstance(outcome, CxredgeError)]
        try:
            logits = iter(infer(prepared) if prepared else [])
        except CxredgeError as error:
            return [outcome if isinstance(outcome, CxredgeError) else error for outcome in outcomes]
        return [
            outcome if isinstance(outcome, CxredgeError) else pool.submit(finish, item, outcome, next(logits))
            for item, outcome in zip(batch, outcomes, strict=True)
        ]

    def read_ahead(item: Item, weighing: Future[float] | None) -> Future[Prepared]:
        error = None if weighing is None else weighing.exception()
        if error is None:
            return pool.submit(read, item)
        failed: Future[Prepared] = Future()
        failed.set_exception(error)
        return failed

    most = lanes * (1 + BATCHES_WAITING)
    under_way: deque[_Batch[Result]] = deque()
    admission = Admission(items, None if cost is None else lambda item: pool.submit(cost, item), most, budget)
    try:
        while True:
            while len(under_way) < most and (batch := admission.admit(batch_size)):
                work = [admitted.item for admitted in batch]
                reads = [read_ahead(admitted.item, admitted.weighing) for admitted in batch]
                weight = sum(admitted.cost for admitted in batch)
                under_way.append(_Batch(weight, device.submit(run_batch, work, reads)))
            if not under_way:
                return
            oldest = under_way.popleft()
            for result in oldest.results.result():
                yield result if isinstance(result, CxredgeError) else _outcome(result)
            admission.release(oldest.cost)
    finally:
        for waiting in under_way:
            waiting.results.cancel()
        device.shutdown(wait=True, cancel_futures=True)
        pool.shutdown(wait=True, cancel_futures=True)


def available_cores() -> int:
    """Cores that this process may use, at most those of :data:`CORES_VARIABLE` where that is set."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    wanted = os.environ.get(CORES_VARIABLE, "")
    return min(cores, int(wanted)) if wanted.isdecimal() and int(wanted) else cores


def _outcome(future: Future[Any]) -> Any:
    """The result of ``future``, or the :class:`CxredgeError` that it raised."""
    try:
        return future.result()
    except CxredgeError as error:
        return error
