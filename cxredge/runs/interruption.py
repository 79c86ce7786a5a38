"""Ctrl-C and SIGTERM as a request to stop where nothing is half done.

After the first signal nothing more is begun: what is being read or written is brought to its end. A second signal
ends the process at once, as ``kill -9`` would; the journal is made for that too.
"""

from __future__ import annotations

import atexit
import os
import signal
import threading
import time
from collections.abc import Generator
from contextlib import closing
from types import FrameType, TracebackType
from typing import Any, TypeVar

Item = TypeVar("Item")

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupted(BaseException):
    """The process was asked to stop; not an error of anyone's."""


class Interruption:
    """Takes over the two signals within a ``with`` block; in threads other than the main one it does nothing.

    Once a signal has come they stay taken over to the end of the process, and are ignored in its last moments, after
    what :mod:`atexit` was told of later than this.

    Args:
        exit_code: of the process when a second signal ends it.
    """

    def __init__(self, exit_code: int) -> None:
        self.requested = False
        self._exit_code = exit_code
        self._waiting = False
        self._handlers: dict[int, Any] = {}

    def each(self, items: Generator[Item, None, None], *, at_once: bool = False) -> Generator[Item, None, None]:
        """Pass ``items`` on; closes them at the end.

        Args:
            items: what is passed on.
            at_once: end the wait for the next item too. The exception then comes up anywhere in ``items``, so that
                locks which it held may stay taken: only for what is given up as a whole, not for a pool of threads.

        Raises:
            Interrupted: a signal came.
        """
        with closing(items):
            while True:
                self._begin_waiting()
                self._waiting = at_once
                try:
                    item = next(items)
                except StopIteration:
                    return
                finally:
                    self._waiting = False
                yield item

    def sleep(self, seconds: float) -> None:
        """Wait.

        Raises:
            Interrupted: a signal came.
        """
        self._begin_waiting()
        try:
            time.sleep(seconds)
        finally:
            self._waiting = False

    def _begin_waiting(self) -> None:
        self._waiting = True
        if self.requested:
            self._waiting = False
            raise Interrupted

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            os._exit(self._exit_code)
        self.requested = True
        if self._waiting:
            self._waiting = False
            raise Interrupted

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._handle) for number in SIGNALS}
            atexit.register(self._ignore)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.requested:  # the process is ending: a second signal may come while the rest is being closed
            return
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        atexit.unregister(self._ignore)

    def _ignore(self) -> None:
        """Python gives up its handlers before the process has ended; a signal would still change the exit code then."""
        for number in self._handlers:
            signal.signal(number, signal.SIG_IGN)
