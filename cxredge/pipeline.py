"""Reading, inference and finishing of many radiographs, overlapped and in order.

Readers work ahead in a pool of threads, batches run on as many lanes as the backend has, and finishing
(post-processing, writing) goes back to the pool. A fixed number of batches is under way at once, so
memory stays bounded and a slow consumer slows the readers.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

from cxredge.errors import CxredgeError

Item = TypeVar("Item")
Prepared = TypeVar("Prepared")
Logits = TypeVar("Logits")
Result = TypeVar("Result")

BATCHES_WAITING = 4
"""Batches that are read ahead or being finished, for each lane."""


def run_pipeline(
    items: Iterable[Item],
    read: Callable[[Item], Prepared],
    infer: Callable[[list[Prepared]], list[Logits]],
    finish: Callable[[Item, Prepared, Logits], Result],
    *,
    batch_size: int,
    workers: int,
    lanes: int = 1,
) -> Generator[Result | CxredgeError, None, None]:
    """Yield, for each item in order, ``finish(item, prepared, logits)`` or the error that stopped it.

    Args:
        items: read lazily.
        read: one item to what inference needs; runs in the pool.
        infer: one batch; runs on ``lanes`` threads.
        finish: one result; runs in the pool.
        batch_size: items in a batch, at least 1.
        workers: threads of the pool, at least 1.
        lanes: batches that run at once, at least 1.

    Yields:
        The result, or the :class:`CxredgeError` that ``read`` or ``finish`` raised for the item, or
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

    under_way: deque[Future[list[Future[Result] | CxredgeError]]] = deque()
    batches = _batched(items, batch_size)
    try:
        while True:
            for batch in islice(batches, lanes * (1 + BATCHES_WAITING) - len(under_way)):
                under_way.append(device.submit(run_batch, batch, [pool.submit(read, item) for item in batch]))
            if not under_way:
                return
            for result in under_way.popleft().result():
                yield result if isinstance(result, CxredgeError) else _outcome(result)
    finally:
        for future in under_way:
            future.cancel()
        device.shutdown(wait=True, cancel_futures=True)
        pool.shutdown(wait=True, cancel_futures=True)


def available_cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _outcome(future: Future[Any]) -> Any:
    """The result of ``future``, or the :class:`CxredgeError` that it raised."""
    try:
        return future.result()
    except CxredgeError as error:
        return error


def _batched(items: Iterable[Item], size: int) -> Iterator[list[Item]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
