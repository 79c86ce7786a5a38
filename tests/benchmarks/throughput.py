"""Throughput of ``cxredge segment`` against the limits of its stages, in one run.

    python tests/benchmarks/throughput.py FOLDER [--model FILE] [--repeats 5]

Two settings are measured. *one lane*: inference has one core, reading and writing have the rest; the
limits are each stage alone with the threads that it has in the run, so the ratio shows how well the
stages overlap. *default*: as ``segment`` runs, inference on every core; there both limits use every
core, and what bounds the run is the sum of all work divided by the cores. Stages and runs are
interleaved; medians are printed.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cxredge import Segmenter, read_radiograph
from cxredge.cli.segment import segment_targets
from cxredge.discovery import find_radiographs
from cxredge.pipeline import available_cores
from cxredge.results import Target


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def decode_all(targets: tuple[Target, ...], threads: int) -> None:
    """Read every radiograph, ``threads`` at once."""
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda target: read_radiograph(target.source), targets))


def measure(segmenter: Segmenter, targets: tuple[Target, ...], lanes: int, repeats: int) -> dict[str, float]:
    """Images per second of decoding alone, inference alone and the whole run, and their ratio."""
    segmenter._backend.lanes = lanes
    workers = available_cores()
    prepared = [segmenter.prepare(target.source) for target in targets]

    def infer_all() -> None:
        with ThreadPoolExecutor(lanes) as pool:
            list(pool.map(lambda one: segmenter.infer([one]), prepared))

    def segment_all() -> None:
        with tempfile.TemporaryDirectory() as folder:
            list(segment_targets(segmenter, targets, Path(folder), overlay=True, batch_size=1, workers=workers))

    stages = {"decoding": lambda: decode_all(targets, workers), "inference": infer_all, "segment": segment_all}
    times: dict[str, list[float]] = {name: [] for name in stages}
    for work in stages.values():
        seconds(work)  # warm up
    for _ in range(repeats):
        for name, work in stages.items():
            times[name].append(seconds(work))
    rates = {name: len(targets) / statistics.median(values) for name, values in times.items()}
    return {**rates, "segment / slower limit": rates["segment"] / min(rates["decoding"], rates["inference"])}


def main() -> None:
    """Measure both settings and print them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    targets = find_radiographs([arguments.folder], Path("out")).targets
    with Segmenter.load(arguments.model, threads=1) as segmenter:
        settings = {"one lane": 1, "default": available_cores()}
        result = {name: measure(segmenter, targets, lanes, arguments.repeats) for name, lanes in settings.items()}
    rounded = {name: {key: round(value, 2) for key, value in rates.items()} for name, rates in result.items()}
    print(json.dumps({"images": len(targets), "cores": available_cores(), "images per second": rounded}, indent=2))


if __name__ == "__main__":
    main()
