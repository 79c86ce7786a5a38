"""The one public class: radiographs in, lung masks out."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from cxredge.admission import pixel_budget
from cxredge.backends import Backend, BackendName, InferencePath, StageTimed, Warmable, open_backend
from cxredge.backends.lane_pool import LanePool
from cxredge.bundle import bundled_model
from cxredge.contract import Contract
from cxredge.errors import CxredgeError, InputError
from cxredge.open_streams import OpenStreams, raising
from cxredge.pipeline import available_cores, run_pipeline
from cxredge.postprocessing import clean_logits, scale_mask
from cxredge.preprocessing import network_input
from cxredge.quality.flags import basic_flags, find, inverted, is_inverted, limited_flags
from cxredge.quality.measurements import Measurements, measure
from cxredge.quality.reference import INVERTED_POLARITY
from cxredge.radiograph import MINIMUM_SIDE
from cxredge.segmentation import Inferred, Prepared, Segmentation
from cxredge.source import Source, as_radiograph, source_pixels
from cxredge.submission import Submissions

__all__ = ["Inferred", "Prepared", "Segmentation", "Segmenter", "Source"]
Item = TypeVar("Item")
Result = TypeVar("Result")


class Segmenter:
    """Segments the lungs in frontal chest radiographs.

    Safe to share: any number of threads may call it, stream through it and submit to it at once, also from
    inside one another. As many calls run at once as keep cores and device busy; the others wait, so that
    neither memory nor the time lost between threads grows with their number. Arrays are read in place: they
    must not change until their result is there. Use :meth:`load`, and :meth:`close` or a ``with`` block.

    Args:
        backend: a loaded model.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._reference = backend.contract.reference
        self._calls = LanePool([None] * calls_at_once(backend), owner="segmenter")
        self._submissions: Submissions[Source, Segmentation] = Submissions()
        self._streams = OpenStreams()

    @classmethod
    def load(
        cls,
        model: str | os.PathLike[str] | None = None,
        *,
        backend: BackendName = "auto",
        threads: int | None = None,
        path: InferencePath = "direct",
        build: bool = True,
    ) -> Segmenter:
        """Load a model.

        Args:
            model: a model file made by ``cxredge export``, or the plan of an engine made by ``cxredge
                build-engine``, with its sidecar beside it; ``None`` for the bundled model.
            backend: one of :data:`cxredge.backends.BACKENDS`. ``auto`` runs a model file in TensorRT where
                the cache has an engine of it for this machine's GPU, else in ONNX Runtime.
            threads: CPU threads of one inference; ``None`` for all cores, the fastest for single calls;
                1 is the fastest for :meth:`stream`, which then runs one radiograph a core.
            path: ``indirect`` adapts to the domain of the labelled radiographs before segmenting; only a
                checkpoint folder can.
            build: whether the backend ``tensorrt`` may build an engine, which takes minutes, where the cache
                has none.

        Raises:
            ModelError: no such file, or no valid contract in it.
            BackendError: the backend is missing or does not fit.
            EngineError: there is no engine that fits, and none could be built.
        """
        return cls(open_backend(bundled_model() if model is None else Path(model), backend, threads, path, build=build))

    @property
    def contract(self) -> Contract:
        """What the model promises: input size, code, precision, provenance, figures."""
        return self._backend.contract

    @property
    def backend(self) -> str:
        """Name of the backend that runs the model."""
        return self._backend.name

    def __call__(self, source: Source) -> Segmentation:
        """Segment one radiograph.

        Args:
            source: a path, a pydicom data set, a :class:`~cxredge.radiograph.Radiograph`, or a 2-D array
                of numbers in which the largest value is white.

        Raises:
            InputError: it cannot be read, or nothing can be segmented in it.
            BackendError: the device failed, or the segmenter is closed.
        """
        with self._calls.lane():
            prepared = self.prepare(source)
            return self.finish(prepared, self.infer([prepared])[0])

    def submit(self, source: Source) -> Future[Segmentation]:
        """Segment one radiograph on a thread of the segmenter's own; returns at once.

        Radiographs are done one after another, in the order of submission. A future that waits can be
        cancelled; its callbacks run on the segmenter's thread. In a coroutine:
        ``await asyncio.wrap_future(segmenter.submit(source))``.

        Args:
            source: as for :meth:`__call__`, whose errors the future gives.

        Raises:
            BusyError: :data:`cxredge.submission.WAITING` wait already.
            BackendError: the segmenter is closed.
        """
        return self._submissions.submit(self, source)

    def warm_up(self, batch_size: int = 1) -> None:
        """Do everything once that the first calls would be slower for.

        Args:
            batch_size: radiographs in one inference, as it will be for :meth:`stream`.

        Raises:
            BackendError: the device failed, or the segmenter is closed.
            ValueError: ``batch_size`` below 1.
        """
        if batch_size < 1:
            raise ValueError("batch_size must be at least 1")
        side = max(self.contract.input_size, MINIMUM_SIDE)
        ramp = np.arange(side * side, dtype=np.int32).reshape(side, side)
        for size in {1, batch_size}:
            if isinstance(self._backend, Warmable):
                self._backend.warm_up(size)
            self.infer([self.prepare(ramp)] * size)
        self(ramp)

    @overload
    def stream(
        self, sources: Iterable[Source], *, batch_size: int = 1, workers: int | None = None
    ) -> Iterator[Segmentation]: ...

    @overload
    def stream(
        self, sources: Iterable[Source], *, batch_size: int = 1, workers: int | None = None, return_errors: bool
    ) -> Iterator[Segmentation | CxredgeError]: ...

    def stream(
        self,
        sources: Iterable[Source],
        *,
        batch_size: int = 1,
        workers: int | None = None,
        return_errors: bool = False,
    ) -> Iterator[Any]:
        """Segment many radiographs; reading, inference and post-processing overlap.

        Args:
            sources: taken lazily, a bounded number ahead.
            batch_size: radiographs in one inference.
            workers: reading and finishing threads; ``None`` for one a core.
            return_errors: yield the :class:`CxredgeError` of a source in its place instead of raising it.

        Yields:
            A :class:`Segmentation` for each source, in order.

        Raises:
            CxredgeError: the first source that fails, unless ``return_errors``.
            ValueError: ``batch_size`` or ``workers`` below 1.
        """

        def finish(_: Source, prepared: Prepared, inferred: Inferred) -> Segmentation:
            return self.finish(prepared, inferred)

        outcomes = self.process(
            sources, self.prepare, finish, batch_size=batch_size, workers=workers, cost=source_pixels
        )
        return outcomes if return_errors else raising(outcomes)

    def process(
        self,
        items: Iterable[Item],
        prepare: Callable[[Item], Prepared],
        finish: Callable[[Item, Prepared, Inferred], Result],
        *,
        batch_size: int = 1,
        workers: int | None = None,
        cost: Callable[[Item], float] | None = None,
        memory_share: float = 1.0,
    ) -> Generator[Result | CxredgeError, None, None]:
        """:meth:`stream` with first and last stages of the caller's, which run in the worker threads.

        ``cost`` gives the pixels of an item before it is read; only as many are under way as memory allows.
        """
        workers = available_cores() if workers is None else workers
        if batch_size < 1 or workers < 1:
            raise ValueError("batch_size and workers must be at least 1")
        outcomes = run_pipeline(
            items,
            prepare,
            self.infer,
            finish,
            batch_size=batch_size,
            workers=workers,
            lanes=self._backend.lanes,
            cost=cost,
            budget=memory_share * pixel_budget(),
        )
        return self._streams.watched(outcomes)

    def prepare(self, source: Source) -> Prepared:
        """Stage one: read a source and make its network input."""
        started = time.perf_counter()
        radiograph = as_radiograph(source)
        read = time.perf_counter()
        try:
            pixels = network_input(radiograph, self.contract.input_size)
            corrected = self._reference is not None and is_inverted(pixels, self._reference)
            if corrected:
                radiograph = inverted(radiograph)
                pixels = network_input(radiograph, self.contract.input_size)
        except InputError as error:
            raise InputError(error.reason, source if isinstance(source, str | os.PathLike) else None) from error
        done = time.perf_counter()
        times = {"read": 1e3 * (read - started), "preprocess": 1e3 * (done - read)}
        return Prepared(radiograph, pixels, times, (INVERTED_POLARITY,) if corrected else ())

    def infer(self, batch: list[Prepared]) -> list[Inferred]:
        """Stage two: run one batch on the device."""
        started = time.perf_counter()
        logits = self._backend.run(np.stack([prepared.input for prepared in batch])[:, None])
        share = 1e3 * (time.perf_counter() - started) / len(batch)
        return [Inferred(one, share) for one in logits]

    def finish(self, prepared: Prepared, inferred: Inferred) -> Segmentation:
        """Stage three: post-process one result."""
        started = time.perf_counter()
        clean = clean_logits(inferred.logits)
        mask = scale_mask(clean, prepared.radiograph.shape)
        measurements = measure(prepared.radiograph, mask)
        flags = self._flags(prepared, inferred.logits, clean > 0, measurements)
        spent = 1e3 * (time.perf_counter() - started)
        times = {**prepared.milliseconds, "inference": inferred.milliseconds, "postprocess": spent}
        return Segmentation(prepared.radiograph, mask, inferred.logits, flags, times, measurements)

    def _flags(
        self, prepared: Prepared, logits: NDArray[np.float32], clean: NDArray[np.bool_], measurements: Measurements
    ) -> tuple[str, ...]:
        """Reasons to look at a result."""
        flags = (*prepared.radiograph.notes, *prepared.flags, *basic_flags(measurements))
        if self._reference is None:
            return flags
        found = find(prepared.input, logits, clean, measurements, prepared.radiograph.pixels.size)
        return (*flags, *limited_flags(found, self._reference))

    def close(self) -> None:
        """Free the model and end every thread; using the segmenter afterwards is an error, closing it again is not.

        Calls and inferences that run are waited for, those that wait are refused, submissions that wait are
        cancelled. Streams end, and give the error to whoever asks them for more.
        """
        self._submissions.close()
        self._streams.close()
        self._calls.close()
        self._backend.close()

    def __enter__(self) -> Segmenter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def calls_at_once(backend: Backend) -> int:
    """Calls that keep cores and device busy: one a core and one that waits for the disk, and those on the device.

    Inference on the CPU takes the cores from reading and finishing. More calls than cores then only take the
    interpreter's lock from one another.
    """
    return available_cores() + (backend.lanes if isinstance(backend, StageTimed) else 1)
