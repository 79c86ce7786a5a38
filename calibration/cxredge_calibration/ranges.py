"""The range of every tensor that gets quantised, estimated over the calibration samples and kept as JSON.

A kept table is used again only where the model's file, the samples' files, what preprocessing made of
them and the method are the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import math
from collections.abc import Callable, Sequence, Set
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnxruntime.quantization.calibrate import HistogramCollector

from cxredge.contract import NORMALISATION, POLARITY, RESIZE
from cxredge.errors import CalibrationError
from cxredge.limits import read_json
from cxredge.runs.results import write_atomically
from cxredge_calibration.layers import Layer
from cxredge_calibration.options import Method, Step
from cxredge_calibration.simulation import open_session, run, with_outputs

FORMAT = 1
BINS = 2048
"""Of a tensor's histogram, over twice its largest magnitude."""
QUANTISED_BINS = 128
PERCENTILE = 99.999
"""Percentage of the magnitudes that a percentile range includes."""


@dataclass(frozen=True)
class Key:
    """What a table of ranges belongs to.

    Attributes:
        model: SHA-256 of the model's file.
        samples: SHA-256 over those of the samples' files, in order.
        preprocessing: SHA-256 over the rules of preprocessing and the network inputs that came of them.
        method: of the estimation.
    """

    model: str
    samples: str
    preprocessing: str
    method: Method


@dataclass(frozen=True)
class Range:
    """The range of one tensor.

    Attributes:
        low: what becomes the lowest value.
        high: what becomes the highest value.
        peak: largest magnitude that occurred.
        peak_input: the sample in which it occurred.
        peak_over_median: that magnitude over the median of all samples' largest magnitudes.
    """

    low: float
    high: float
    peak: float
    peak_input: str
    peak_over_median: float


@dataclass(frozen=True)
class RangeTable:
    """Ranges by tensor, and what they belong to."""

    key: Key
    ranges: dict[str, Range]

    def bounds(self) -> dict[str, tuple[float, float]]:
        """(low, high) by tensor."""
        return {name: (found.low, found.high) for name, found in self.ranges.items()}

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object."""
        ranges = {name: asdict(found) for name, found in self.ranges.items()}
        return {"format": FORMAT, "key": asdict(self.key), "ranges": ranges}


def table_key(model: bytes, samples: Sequence[str], inputs: Sequence[NDArray[np.float32]], method: Method) -> Key:
    """The key of a table.

    Args:
        model: content of the model's file.
        samples: SHA-256 of each sample's file.
        inputs: ``(S, S)`` network inputs that the ranges are estimated on.
        method: of the estimation.
    """
    digest = hashlib.sha256("\n".join((NORMALISATION, RESIZE, POLARITY)).encode())
    for pixels in inputs:
        digest.update(np.ascontiguousarray(pixels).data)
    return Key(
        hashlib.sha256(model).hexdigest(),
        hashlib.sha256("\n".join(samples).encode()).hexdigest(),
        digest.hexdigest(),
        method,
    )


def kept_or_estimated(
    path: Path, key: Key, tensors: Set[str], estimate: Callable[[], dict[str, Range]]
) -> tuple[RangeTable, bool]:
    """The table in ``path`` where it belongs to ``key``, else a new one, which is written there.

    Returns:
        The table, and whether it was there already.

    Raises:
        CalibrationError: the file is something else.
        OutputError: it cannot be written.
    """
    kept = read_table(path) if path.exists() else None
    if kept is not None and kept.key == key and set(kept.ranges) == tensors:
        return kept, True
    table = RangeTable(key, estimate())
    write_atomically(path, (json.dumps(table.to_dict(), indent=2) + "\n").encode())
    return table, False


def read_table(path: Path) -> RangeTable:
    """Read a table of ranges.

    Raises:
        CalibrationError: the file is no such table, or has a range that is none.
    """
    try:
        content = read_json(path)
        if content["format"] != FORMAT:
            raise ValueError(f"format is {content['format']!r}, this cxredge knows {FORMAT}")
        table = RangeTable(Key(**content["key"]), {name: Range(**each) for name, each in content["ranges"].items()})
        for name, (low, high) in table.bounds().items():
            require_range(name, low, high)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CalibrationError(f"{path}: is no table of ranges ({error}); delete it or name another file") from error
    return table


def require_range(name: str, low: float, high: float) -> None:
    """Raise :class:`ValueError` where ``[low, high]`` is not finite or not a range."""
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ValueError(f"tensor '{name}' has the range [{low}, {high}]")


def estimate_ranges(
    model: onnx.ModelProto,
    layers: Sequence[Layer],
    inputs: Sequence[NDArray[np.float32]],
    names: Sequence[str],
    method: Method,
    threads: int,
    step: Step,
) -> dict[str, Range]:
    """Estimate the range of each layer's source.

    One input is in memory at a time, with the tensors that it gives. The histograms of ``entropy`` and
    ``percentile`` need a second pass, with edges that the first has found.

    Args:
        model: a prepared FP32 graph.
        layers: whose sources to look at.
        inputs: ``(S, S)`` network inputs.
        names: of the inputs.
        method: ``minmax``, or ONNX Runtime's ``entropy`` or ``percentile``.
        threads: CPU threads of one inference.
        step: called after each input.

    Raises:
        CalibrationError: a tensor has values that are not finite.
    """
    tensors = list(dict.fromkeys(layer.source for layer in layers))
    session = open_session(with_outputs(model, tensors), threads)
    total = len(inputs) * (1 if method == "minmax" else 2)
    extremes = np.empty((len(inputs), len(tensors), 2))
    for index, pixels in enumerate(inputs):
        extremes[index] = [(values.min(), values.max()) for values in run(session, pixels)[1:]]
        if not np.isfinite(extremes[index]).all():
            raise CalibrationError(f"{names[index]}: gives NaN or infinite values in the network; leave it out")
        step(index + 1, total)
    lows, highs = extremes[..., 0].min(axis=0), extremes[..., 1].max(axis=0)
    bounds = dict(zip(tensors, zip(lows.tolist(), highs.tolist(), strict=True), strict=True))
    if method != "minmax":
        collector = histogram_collector(method, bounds)
        for index, pixels in enumerate(inputs):
            collect(collector, dict(zip(tensors, run(session, pixels)[1:], strict=True)))
            step(len(inputs) + index + 1, total)
        bounds = {name: within(found, *bounds[name]) for name, found in histogram_bounds(collector).items()}
    peaks = dict(zip(tensors, np.abs(extremes).max(axis=2).T, strict=True))
    return {name: make_range(*bounds[name], peaks[name], names) for name in tensors}


def make_range(low: float, high: float, peaks: NDArray[np.float64], names: Sequence[str]) -> Range:
    """A range with the input that stretched it most; ``peaks`` ``(N,)`` are the inputs' largest magnitudes."""
    highest = int(peaks.argmax())
    median = max(float(np.median(peaks)), float(np.finfo(np.float32).tiny))
    return Range(low, high, float(peaks[highest]), names[highest], float(peaks[highest] / median))


def within(found: tuple[float, float], low: float, high: float) -> tuple[float, float]:
    """A range cut to what occurred; histograms are symmetric, tensors are not."""
    return max(found[0], low), min(found[1], high)


def histogram_collector(method: Method, bounds: dict[str, tuple[float, float]]) -> HistogramCollector:
    """ONNX Runtime's collector, its edges set by the largest magnitude of each tensor."""
    collector = HistogramCollector(
        method=method,
        symmetric=True,
        num_bins=BINS,
        num_quantized_bins=QUANTISED_BINS,
        percentile=PERCENTILE,
        scenario="same",
    )
    edges = {name: np.array([0, max(abs(low), abs(high))], np.float32) for name, (low, high) in bounds.items()}
    collect(collector, edges)
    return collector


def collect(collector: HistogramCollector, values: dict[str, NDArray[np.float32]]) -> None:
    """Add values to the histograms; ONNX Runtime prints as it goes, which nobody needs."""
    with contextlib.redirect_stdout(io.StringIO()):
        collector.collect(values)


def histogram_bounds(collector: HistogramCollector) -> dict[str, tuple[float, float]]:
    """The range of each tensor that the collector finds."""
    with contextlib.redirect_stdout(io.StringIO()):
        found = collector.compute_collection_result()
    return {name: (float(bounds[0]), float(bounds[1])) for name, bounds in found.items()}
