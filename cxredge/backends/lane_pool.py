"""A fixed number of lanes that threads take in turn: each runs one thing at a time, the last one closes them all.

Backends keep what runs a batch in one, so that memory does not grow with the number of threads that call;
:class:`cxredge.segmenter.Segmenter` keeps the calls themselves in another.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

from cxredge.errors import BackendError

Lane = TypeVar("Lane")


class LanePool(Generic[Lane]):
    """Lanes, of which the one that was used last is taken first, because it is warm.

    Args:
        lanes: all of them, idle.
        patience: seconds that a thread waits for a lane; ``None`` where none of them can hang.
        owner: whose lanes they are, for the message of a closed pool.
    """

    def __init__(self, lanes: Sequence[Lane], patience: float | None = None, owner: str = "backend") -> None:
        self._lanes, self._idle, self._patience, self._owner = list(lanes), list(lanes), patience, owner
        self._closed = False
        self._changed = threading.Condition()
        self._process = os.getpid()

    @contextmanager
    def lane(self) -> Iterator[Lane]:
        """Have a lane to oneself.

        Raises:
            BackendError: the pool is closed, it is another process's, or all lanes stay busy.
        """
        lane = self._take()
        try:
            yield lane
        finally:
            with self._changed:
                self._idle.append(lane)
                if self._closed:
                    self._changed.notify_all()
                else:
                    self._changed.notify()

    def _take(self) -> Lane:
        require_own_process(self._process, self._owner)
        with self._changed:
            found = self._changed.wait_for(lambda: self._closed or self._idle, self._patience)
            if self._closed:
                raise BackendError(f"the {self._owner} is closed")
            if not found:
                raise BackendError(
                    f"all {len(self._lanes)} lanes of the engine were busy for {self._patience:.0f} s; the GPU hangs, "
                    "or too many threads share it: look at 'nvidia-smi'"
                )
            return self._idle.pop()

    def close(self) -> list[Lane]:
        """Refuse whoever still waits, wait for what runs, and give all lanes; none when it was closed already.

        After ``fork()`` the lanes are the parent's: the child gets none and waits for none.
        """
        if os.getpid() != self._process:
            return []
        with self._changed:
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: len(self._idle) == len(self._lanes))
            lanes, self._lanes, self._idle = self._lanes, [], []
            return lanes


def require_own_process(process: int, owner: str) -> None:
    """Raise :class:`BackendError` in a child that was forked: threads and locks of the parent are not there."""
    if os.getpid() != process:
        raise BackendError(
            f"the {owner} was loaded in another process, and a model does not survive fork(): "
            "load it in this process, or start processes with 'spawn'"
        )
