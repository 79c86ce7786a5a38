"""Steps of a long measurement, each in a process of its own: one that fails, crashes or hangs takes no other with it.

A step is a function that yields what it has found so far, again and again; what it had yielded last is kept
whatever becomes of it.
"""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable, Iterator
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from time import monotonic
from typing import Any, TypeAlias

Figures: TypeAlias = dict[str, Any]
Step: TypeAlias = Callable[[], Iterator[Figures]]
"""Yields figures, each time all that there are; can be pickled."""

FAILED = "failed"
"""Name under which a step's figures say why it did not end well."""


def isolated(step: Step, seconds: float) -> Iterator[Figures]:
    """What a step finds, as it finds it; the last time with the reason where it did not end by itself.

    Args:
        step: what to do.
        seconds: after which it is stopped, with every process that it has started.
    """
    context = get_context("spawn")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=carry_out, args=(step, theirs))
    process.start()
    theirs.close()
    until, found = monotonic() + seconds, Figures()
    try:
        while ours.poll(max(0.0, until - monotonic())):
            found = ours.recv()
            if found is None:
                return
            yield found
        yield {**found, FAILED: f"it was stopped after {seconds:.0f} s"}
    except EOFError:
        process.join()
        yield {**found, FAILED: f"its process ended with exit code {process.exitcode}"}
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.kill()
        process.join()


def carry_out(step: Step, found: Connection) -> None:
    """What the step's process does."""
    os.setsid()
    last = Figures()
    try:
        for last in step():
            found.send(last)
    except Exception as error:  # whatever it is, it is what was found; the other steps go on
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        found.send({**last, FAILED: f"{type(error).__name__}: {str(error).strip()} ({where})"})
    found.send(None)
