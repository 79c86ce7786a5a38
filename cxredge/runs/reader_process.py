"""Reading in processes of their own: a file on which a reader hangs or crashes costs only itself.

A thread that hangs in a decoder cannot be ended, and one that crashes takes everything with it; a process
can be ended and replaced. ``segment --timeout`` and ``cxredge watch`` read this way. What comes back is
JSON and the pixels' bytes: nothing that a reader sends is unpickled.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import queue
import signal
import warnings
from contextlib import suppress
from dataclasses import fields
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from cxredge.admission import decoded_pixels
from cxredge.errors import InputError
from cxredge.radiograph import Radiograph, read_radiograph
from cxredge.runs.proof import Signature, source_signature

START_SECONDS = 120.0
"""Longest time that a new process may take until it can read."""
WEIGH, READ = b"w", b"r"
"""First byte of a request; the path follows."""


class Reader(Protocol):
    """Something that reads radiographs for a run; safe to call from several threads."""

    def weigh(self, path: Path) -> tuple[Signature | None, int]:
        """Signature of a source, and the pixels that reading it takes memory for."""

    def read(self, path: Path) -> Radiograph:
        """The radiograph in a file."""

    def close(self) -> None:
        """End what was started."""


class ThreadReader:
    """Reads in the thread that asks."""

    def weigh(self, path: Path) -> tuple[Signature | None, int]:
        return source_signature(path), decoded_pixels(path)

    def read(self, path: Path) -> Radiograph:
        return read_radiograph(path)

    def close(self) -> None:
        pass


class ProcessReader:
    """Reads in processes, started when they are needed, each for one file at a time.

    Args:
        count: of processes, at least the number of threads that read at once.
        timeout: seconds that weighing or reading one file may take; then its process is ended.
    """

    def __init__(self, count: int, timeout: float) -> None:
        self._timeout = timeout
        self._closed = False
        self._started: set[_Process] = set()
        self._idle: queue.LifoQueue[_Process | None] = queue.LifoQueue()
        for _ in range(count):
            self._idle.put(None)

    def weigh(self, path: Path) -> tuple[Signature | None, int]:
        """Signature of a source and its pixels.

        Raises:
            InputError: it took too long, or the reader crashed.
        """
        answer, _ = self._ask(WEIGH, path)
        signature = answer["signature"]
        return signature and tuple(signature), answer["pixels"]

    def read(self, path: Path) -> Radiograph:
        """The radiograph in a file.

        Raises:
            InputError: it cannot be read, took too long, or the reader crashed.
        """
        answer, pixels = self._ask(READ, path)
        return radiograph_from_parts(answer, pixels)

    def close(self) -> None:
        """End the processes, also those that are reading; what is asked for afterwards fails."""
        self._closed = True
        for process in tuple(self._started):
            process.end()

    def _ask(self, request: bytes, path: Path) -> tuple[dict[str, Any], bytes]:
        process = self._idle.get()
        try:
            process = process or self._start()
            answer, pixels = process.ask(request + os.fsencode(path), self._timeout)
        except BaseException as error:
            if process:
                process.end()
                self._started.discard(process)
            process = None
            if isinstance(error, InputError):
                raise InputError(error.reason, path) from error
            raise
        finally:
            self._idle.put(process)
        if "error" in answer:
            raise InputError(answer["error"], path)
        return answer, pixels

    def _start(self) -> _Process:
        if self._closed:
            raise InputError("was not read: the run has ended")
        process = _Process()
        self._started.add(process)
        return process


class _Process:
    """One process that reads, and the connection to it."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=serve, args=(theirs,), name="cxredge-reader", daemon=True)
        self._process.start()
        theirs.close()
        self._answer(START_SECONDS, "the reader did not start")

    def ask(self, request: bytes, timeout: float) -> tuple[dict[str, Any], bytes]:
        """Send a request; gives the answer and, where there are, the pixels.

        Raises:
            InputError: no answer in time, or the process has ended.
        """
        with suppress(OSError):  # it has ended since; what it ended with is found below
            self._connection.send_bytes(request)
        answer = json.loads(self._answer(timeout, f"was not read within {timeout:g} s and is left out"))
        return answer, self._connection.recv_bytes() if answer.get("shape") else b""

    def _answer(self, timeout: float, complaint: str) -> bytes:
        try:
            if not self._connection.poll(timeout):
                raise InputError(complaint)
            return self._connection.recv_bytes()
        except (EOFError, OSError) as error:
            self._process.join(1)
            raise InputError(f"the reader crashed on it ({exit_cause(self._process.exitcode)})") from error

    def end(self) -> None:
        """End the process; one that the system keeps in an endless wait is left behind."""
        self._process.kill()
        self._connection.close()


def exit_cause(code: int | None) -> str:
    """What a process ended with, in words."""
    if code is not None and code < 0:
        return f"signal {signal.Signals(-code).name}"
    return f"exit code {code}"


def serve(connection: Connection) -> None:
    """Answer requests until the other end is closed: what a reading process does."""
    for number in (signal.SIGINT, signal.SIGTERM):  # they are for the parent, which ends this process when it is done
        signal.signal(number, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    connection.send_bytes(b"ready")
    while True:
        try:
            request = connection.recv_bytes()
        except (EOFError, OSError):
            return
        path = Path(os.fsdecode(request[1:]))
        answer, pixels = weighed(path) if request[:1] == WEIGH else read_parts(path)
        try:
            connection.send_bytes(json.dumps(answer).encode())
            if pixels is not None:
                connection.send_bytes(pixels)
        except OSError:  # the parent has ended, by a second Ctrl-C, while this was reading for it
            return


def weighed(path: Path) -> tuple[dict[str, Any], None]:
    """Answer to a request to weigh."""
    return {"signature": source_signature(path), "pixels": decoded_pixels(path)}, None


def read_parts(path: Path) -> tuple[dict[str, Any], memoryview | None]:
    """Answer to a request to read: every field of the radiograph but the pixels as JSON, and their bytes."""
    try:
        radiograph = read_radiograph(path)
    except InputError as error:
        return {"error": error.reason}, None
    except MemoryError:
        return {"error": "is too large for this machine's memory"}, None
    pixels = np.ascontiguousarray(radiograph.pixels)
    others = {field.name: getattr(radiograph, field.name) for field in fields(radiograph) if field.name != "pixels"}
    answer = {"shape": pixels.shape, "dtype": pixels.dtype.str, "fields": others}
    return answer, pixels.reshape(-1).view(np.uint8).data


def radiograph_from_parts(answer: dict[str, Any], pixels: bytes) -> Radiograph:
    """The radiograph of which :func:`read_parts` made ``answer`` and ``pixels``."""
    array = np.frombuffer(pixels, np.dtype(answer["dtype"])).reshape(answer["shape"])
    return Radiograph(array, **{name: _tuples(value) for name, value in answer["fields"].items()})


def _tuples(value: Any) -> Any:
    """Lists, which JSON has in place of tuples, as tuples again."""
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
