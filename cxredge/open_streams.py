"""Streams that are under way, so that closing a segmenter ends their threads too.

A stream is a generator with threads behind it. Nobody may be about to ask it for more when the segmenter is
closed: a viewer that shows one result at a time keeps it for as long as the person looks.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Generator, Iterator
from contextlib import closing, suppress
from typing import TypeVar

from cxredge.errors import BackendError, CxredgeError

Result = TypeVar("Result")


class OpenStreams:
    """The streams of one segmenter; safe to use from several threads."""

    def __init__(self) -> None:
        self._streams: weakref.WeakSet[Generator[object, None, None]] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._closed = False

    def watched(self, stream: Generator[Result, None, None]) -> Generator[Result, None, None]:
        """``stream``, which ends with an error where :meth:`close` ends it.

        Raises:
            BackendError: closed, by the first result that is asked for afterwards.
        """
        with self._lock:
            self._streams.add(stream)
        try:
            while not self._closed:
                try:
                    yield next(stream)
                except StopIteration:
                    if not self._closed:
                        return
                except ValueError:  # it is being closed at this moment
                    if not self._closed:
                        raise
        finally:
            with suppress(ValueError):
                stream.close()
        raise BackendError("the segmenter is closed")

    def close(self) -> None:
        """End every stream that nobody is waiting for; who waits is told with what comes next."""
        with self._lock:
            self._closed = True
            streams = list(self._streams)
        for stream in streams:
            with suppress(ValueError):  # somebody waits for its next result
                stream.close()


def raising(outcomes: Generator[Result | CxredgeError, None, None]) -> Iterator[Result]:
    """Pass results on; raise the first error. Closing it closes ``outcomes``."""
    with closing(outcomes):
        for outcome in outcomes:
            if isinstance(outcome, CxredgeError):
                raise outcome
            yield outcome
