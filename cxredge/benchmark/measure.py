"""Measuring a model stage by stage, and against itself on other backends.

Contestants take turns within each repeat (A B A B), so that what else happens on the machine hits all of
them alike; they are compared by the median of the ratios of neighbouring runs. The stages on the
host are those that :class:`cxredge.Segmenter` runs for every backend: ``decode`` and ``preprocess``
before inference, ``postprocess`` and ``write`` after it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count, cycle, islice
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cxredge.backends import Backend, StageTimed
from cxredge.runs.results import Target, write_pictures
from cxredge.segmenter import Inferred, Prepared, Segmenter

COMPUTE = "compute"
DEVICE_STAGES = ("host_to_device", COMPUTE, "device_to_host")
HOST_STAGES = ("decode", "preprocess", "postprocess", "write")
STAGES = ("decode", "preprocess", *DEVICE_STAGES, "postprocess", "write")
"""In the order in which a radiograph goes through them."""
PERCENTILES = (50, 90, 99)


@dataclass(frozen=True)
class Series:
    """Milliseconds of inference of one contestant at one batch size, one value a repeat.

    Attributes:
        contestant: its name.
        batch: radiographs in a run.
        total: of the whole run, as the caller sees it.
        stages: of those of :data:`DEVICE_STAGES` that the backend tells apart; ``compute`` always.
    """

    contestant: str
    batch: int
    total: list[float] = field(default_factory=list)
    stages: dict[str, list[float]] = field(default_factory=dict)

    @property
    def images_per_second(self) -> float:
        """Radiographs a second of inference alone, by the median."""
        return self.batch * 1e3 / float(np.median(self.total))

    def ratio_to(self, other: Series) -> float:
        """Median, over the repeats, of this contestant's time divided by the other's."""
        return float(np.median(np.divide(self.total, other.total)))


@dataclass(frozen=True)
class Measurement:
    """A finished benchmark.

    Attributes:
        host: milliseconds of one radiograph in each of :data:`HOST_STAGES`, one value a repeat.
        series: inference by contestant and batch size, in the order of measuring.
    """

    host: dict[str, list[float]]
    series: tuple[Series, ...]

    def reference(self, series: Series) -> Series:
        """The first contestant at the batch size of ``series``: what it is compared with."""
        return next(one for one in self.series if one.batch == series.batch)


def percentiles(milliseconds: Sequence[float]) -> dict[str, float]:
    """``p50``, ``p90`` and ``p99`` of some times."""
    values = np.percentile(milliseconds, PERCENTILES)
    return {f"p{percentile}": float(value) for percentile, value in zip(PERCENTILES, values, strict=True)}


def measure(
    contestants: Mapping[str, Backend],
    sources: Sequence[Path],
    folder: Path,
    *,
    batches: Sequence[int],
    repeats: int,
    step: Callable[[], object] = lambda: None,
) -> Measurement:
    """Time every contestant at every batch size, and the stages on the host in between.

    Args:
        contestants: backends by name; all take inputs of one size. The first is the reference.
        sources: files of radiographs, taken in turn.
        folder: where results are written to be timed.
        batches: batch sizes.
        repeats: timed runs of each; one more before them is not counted.
        step: called after each run, for a progress bar.

    Raises:
        InputError: a source cannot be read.
        BackendError: a contestant failed.
    """
    segmenter = Segmenter(next(iter(contestants.values())))
    prepared = [segmenter.prepare(source) for source in sources]
    host: dict[str, list[float]] = {stage: [] for stage in HOST_STAGES}
    host_times = host_stages(segmenter, sources, prepared, folder)
    next(host_times)
    finished: list[Series] = []
    for batch in batches:
        inputs = batch_of(prepared, batch)
        round_of = {name: Series(name, batch) for name in contestants}
        for backend in contestants.values():
            run_once(backend, inputs)
            step()
        for _ in range(repeats):
            append(host, next(host_times))
            for name, backend in contestants.items():
                total, stages = run_once(backend, inputs)
                round_of[name].total.append(total)
                append(round_of[name].stages, stages)
                step()
        finished += round_of.values()
    return Measurement(host, tuple(finished))


def batch_of(prepared: Sequence[Prepared], batch: int) -> NDArray[np.float32]:
    """Network inputs ``(batch, 1, S, S)``, the radiographs taken in turn."""
    return np.stack([one.input for one in islice(cycle(prepared), batch)])[:, None]


def run_once(backend: Backend, inputs: NDArray[np.float32]) -> tuple[float, dict[str, float]]:
    """Milliseconds of one run, and of the stages that the backend tells apart, in a run of their own if there are."""
    started = time.perf_counter()
    backend.run(inputs)
    total = 1e3 * (time.perf_counter() - started)
    if isinstance(backend, StageTimed):
        return total, backend.timed_run(inputs)[1]
    return total, {COMPUTE: total}


def host_stages(
    segmenter: Segmenter, sources: Sequence[Path], prepared: Sequence[Prepared], folder: Path
) -> Iterator[dict[str, float]]:
    """Milliseconds of the host's stages for one radiograph after the other, without end."""
    inferred = [segmenter.infer([one])[0] for one in prepared]
    for turn in count():
        index = turn % len(sources)
        yield host_stage_times(segmenter, sources[index], inferred[index], folder)


def host_stage_times(segmenter: Segmenter, source: Path, inferred: Inferred, folder: Path) -> dict[str, float]:
    """Milliseconds of reading, preparing, finishing and writing one radiograph, as ``segment`` does it."""
    segmentation = segmenter.finish(segmenter.prepare(source), inferred)
    started = time.perf_counter()
    write_pictures(folder, Target(source, Path("result")), segmentation, overlay=True)
    written = 1e3 * (time.perf_counter() - started)
    spent = segmentation.milliseconds
    return {
        "decode": spent["read"],
        "preprocess": spent["preprocess"],
        "postprocess": spent["postprocess"],
        "write": written,
    }


def append(lists: dict[str, list[float]], values: Mapping[str, float]) -> None:
    """Append each of ``values`` to the list of its name."""
    for name, value in values.items():
        lists.setdefault(name, []).append(value)


def flipped_pixels(contestants: Mapping[str, Backend], sources: Sequence[Path]) -> dict[str, int]:
    """Mask pixels at network size, over all sources, in which each contestant differs from the first."""
    reference = Segmenter(next(iter(contestants.values())))
    inputs = [reference.prepare(source).input[None, None] for source in sources]
    masks = {name: np.concatenate([backend.run(one) > 0 for one in inputs]) for name, backend in contestants.items()}
    first = next(iter(masks.values()))
    return {name: int((mask != first).sum()) for name, mask in masks.items()}
