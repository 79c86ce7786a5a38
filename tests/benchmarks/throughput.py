"""Throughput of ``cxredge segment`` against the limits of its stages, in one run.

    python tests/benchmarks/throughput.py FOLDER [--model FILE] [--repeats 5]

Two settings are measured. *half each*: inference has half of the cores, reading and writing the other
half; the limits are each stage alone with the threads that it has in the run, so the ratio shows how
well the stages overlap. *default*: as ``segment`` runs, every stage on every core, which is faster on
the whole; there both limits use every core, and what bounds the run is the sum of all work. Stages and
runs are interleaved, each goes over the folder several times, medians are printed.
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
from cxredge.algorithm import Algorithm
from cxredge.pipeline import available_cores
from cxredge.runs.discovery import find_radiographs
from cxredge.runs.reader_process import ThreadReader
from cxredge.runs.results import Target
from cxredge.runs.run import segment_targets
from cxredge.runs.writer import ResultWriter

PASSES = 4
"""Times that a run goes over the folder, so that its first and last image weigh little."""


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def decode_all(targets: tuple[Target, ...], threads: int) -> None:
    """Read every radiograph, ``threads`` at once."""
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda target: read_radiograph(target.source), targets))


def measure(segmenter: Segmenter, targets: tuple[Target, ...], threads: int, repeats: int) -> dict[str, float]:
    """Images per second of decoding alone, inference alone and the whole run, and their ratio.

    ``threads`` is how many inference runs go on at once, and how many threads read and write.
    """
    segmenter._backend.lanes = workers = lanes = threads
    prepared = [segmenter.prepare(target.source) for target in targets]

    def infer_all() -> None:
        with ThreadPoolExecutor(lanes) as pool:
            list(pool.map(lambda one: segmenter.infer([one]), prepared))

    def segment_all() -> None:
        with tempfile.TemporaryDirectory() as folder:
            write = ResultWriter(("png",), Algorithm.of(segmenter.contract, ""))
            list(segment_targets(segmenter, targets, Path(folder), ThreadReader(), write, workers=workers))

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
    found = find_radiographs([arguments.folder], Path("out")).targets
    targets = tuple(Target(one.source, Path(str(turn)) / one.stem) for turn in range(PASSES) for one in found)
    with Segmenter.load(arguments.model, threads=1) as segmenter:
        settings = {"half each": max(1, available_cores() // 2), "default": available_cores()}
        result = {name: measure(segmenter, targets, threads, arguments.repeats) for name, threads in settings.items()}
    rounded = {name: {key: round(value, 2) for key, value in rates.items()} for name, rates in result.items()}
    print(json.dumps({"images": len(targets), "cores": available_cores(), "images per second": rounded}, indent=2))


if __name__ == "__main__":
    main()
