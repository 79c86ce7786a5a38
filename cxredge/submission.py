"""Radiographs that are handed over now and segmented later, one after another on a thread of their own.

It is what :meth:`cxredge.segmenter.Segmenter.submit` stands on: a user interface hands a radiograph over and goes
on drawing. At most :data:`WAITING` wait at once; the thread starts with the first and ends with :meth:`close`.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Generic, TypeVar

from cxredge.backends.lane_pool import require_own_process
from cxredge.errors import BackendError, BusyError

Item = TypeVar("Item")
Result = TypeVar("Result")

WAITING = 64
"""Radiographs that may wait or run at once; their arrays are held that long."""


class Submissions(Generic[Item, Result]):
    """A queue with one thread; safe to use from several threads, from futures' callbacks too.

    Args:
        most: how many may wait or run at once.
    """

    def __init__(self, most: int = WAITING) -> None:
        self._most, self._open, self._closed = most, 0, False
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._worker: int | None = None
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="cxredge-submit")

    def submit(self, call: Callable[[Item], Result], item: Item) -> Future[Result]:
        """The future of ``call(item)``; what is cancelled before it runs is let go of at once.

        Raises:
            BusyError: too many wait.
            BackendError: closed, or in a child process that was forked.
        """
        require_own_process(self._process, "segmenter")
        ticket = [item]
        with self._lock:
            if self._closed:
                raise BackendError("the segmenter is closed")
            if self._open >= self._most:
                raise BusyError(
                    f"{self._open} radiographs wait already; wait for their results or cancel some, "
                    "or use stream(), which takes any number"
                )
            future = self._executor.submit(self._run, call, ticket)
            self._open += 1
        future.add_done_callback(partial(self._done, ticket))
        return future

    def _run(self, call: Callable[[Item], Result], ticket: list[Item]) -> Result:
        self._worker = threading.get_ident()
        return call(ticket.pop())

    def _done(self, ticket: list[Item], _: Future[Result]) -> None:
        ticket.clear()  # the executor keeps what was cancelled until its turn comes
        with self._lock:
            self._open -= 1

    def close(self) -> None:
        """Cancel what waits, wait for what runs (not where that is the caller itself), and end the thread.

        After ``fork()`` all of that is the parent's, and the child does nothing.
        """
        if os.getpid() != self._process:
            return
        with self._lock:
            self._closed = True
        in_callback = threading.get_ident() == self._worker
        self._executor.shutdown(wait=not in_callback, cancel_futures=True)
