"""Segments what waits in the queue, one object after another."""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass

from cxredge.algorithm import Algorithm
from cxredge.errors import BackendError, InputError
from cxredge.logs import log_event
from cxredge.node.metrics import Metrics
from cxredge.node.queue import Job, JobQueue
from cxredge.node.results import result_objects
from cxredge.node.state import StateFolder, remove
from cxredge.runs.formats import Format
from cxredge.runs.reader_process import Reader
from cxredge.segmenter import Segmenter

MOST_TRIES = 20
"""Times that an object is begun: each beyond the first means that the node was killed, or the device failed."""
RETRY_SECONDS = 10.0
"""Between two tries with a device that fails."""
IDLE_SECONDS = 1.0


@dataclass(frozen=True)
class Engine:
    """What segments for the node: the model, and the processes that decode."""

    segmenter: Segmenter
    algorithm: Algorithm
    reader: Reader
    formats: tuple[Format, ...]


class Worker:
    """A thread that segments.

    Args:
        engine: what segments.
        queue: what is to be done.
        state: where the files are.
        metrics: of the node.
    """

    def __init__(self, engine: Engine, queue: JobQueue, state: StateFolder, metrics: Metrics) -> None:
        self._engine, self._queue, self._state, self._metrics = engine, queue, state, metrics
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cxredge-segment", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether it works."""
        return self._thread.is_alive()

    def close(self) -> None:
        """Finish what is under way and end."""
        self._stopping.set()
        self._queue.wake()
        self._thread.join()

    def _run(self) -> None:
        while not self._stopping.is_set():
            job = self._queue.take("waiting")
            if job is None:
                self._queue.wait(IDLE_SECONDS)
            else:
                self._do(job)

    def _do(self, job: Job) -> None:
        try:
            if job.tries > MOST_TRIES:
                raise InputError(f"was begun {MOST_TRIES} times and never ended")
            with self._metrics.seconds.time():
                self._segment(job)
        except InputError as error:
            self._fail(job, error.reason)
        except (BackendError, OSError) as error:  # the device, or the disk
            self._queue.postpone(job, RETRY_SECONDS, counted=False)
            self._count("postponed", type(error).__name__)
        except Exception as error:  # a bug of ours on this object must not stop the others; its job is kept as failed
            self._fail(job, f"{type(error).__name__}: {error}")

    def _segment(self, job: Job) -> None:
        engine = self._engine
        started = time.perf_counter()
        segmentation = engine.segmenter(engine.reader.read(job.object))
        made = result_objects(job.object, segmentation, engine.algorithm, engine.formats)
        results = [self._state.write_result(content) for content in made]
        self._queue.segmented(job, results)
        self._metrics.segmented.labels("done").inc()
        spent = round(1e3 * (time.perf_counter() - started), 1)
        log_event("segmented", job=job.number, flags=segmentation.flags, milliseconds=spent)

    def _fail(self, job: Job, reason: str) -> None:
        for file in self._queue.fail(job, reason):
            remove(file)
        self._count("failed", "see the queue", job=job.number)

    def _count(self, outcome: str, cause: str, **fields: int) -> None:
        self._metrics.segmented.labels(outcome).inc()
        log_event(f"segmentation_{outcome}", logging.ERROR, cause=cause, **fields)
