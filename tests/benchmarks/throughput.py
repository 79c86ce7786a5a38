"""Throughput of ``cxredge segment`` against the limits of its stages, in one run.

    python tests/benchmarks/throughput.py FOLDER [--model FILE] [--repeats 5]
    python tests/benchmarks/throughput.py --made 320

Three stages are measured alone: reading with preprocessing, inference, and finishing with writing. *half each*:
inference has half of the cores, reading and writing the other half, each stage alone has as many. *default*: as
``segment`` runs, every stage on every core. ``of the slower stage`` is the run's rate by that of the slowest
stage alone. In the default setting the stages share the cores, so no run can be faster than all work one after the
other: ``of all work`` is the run's rate by that. Stages and runs are interleaved, medians are printed. ``--made SIDE``
takes the made radiographs of ``long_run.py`` in place of a folder.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from long_run import make_originals

from cxredge import Segmenter
from cxredge.algorithm import Algorithm
from cxredge.pipeline import available_cores
from cxredge.runs.discovery import find_radiographs
from cxredge.runs.reader_process import ThreadReader
from cxredge.runs.results import Target
from cxredge.runs.run import proofs, segment_targets
from cxredge.runs.writer import ResultWriter
from cxredge.segmenter import Inferred, Prepared

PASSES = 4
"""Times that a run goes over the folder, so that its first and last image weigh little."""


def seconds(work: Callable[[], object]) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def measure(segmenter: Segmenter, targets: tuple[Target, ...], threads: int, repeats: int) -> dict[str, float]:
    """Images per second of each stage alone and of the whole run, and what share of its limits the run has.

    ``threads`` is how many inference runs go on at once, and how many threads read and write.
    """
    segmenter._backend.lanes = threads
    write = ResultWriter(("png",), Algorithm.of(segmenter.contract, ""))
    prepared = [segmenter.prepare(target.source) for target in targets]
    inferred = [segmenter.infer([one])[0] for one in prepared]

    def on_threads(work: Callable[..., object], *arguments: Iterable[Any]) -> None:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, *arguments))

    def finish_all() -> None:
        with tempfile.TemporaryDirectory() as folder:

            def finish(target: Target, one: Prepared, logits: Inferred) -> None:
                proofs(Path(folder), write(Path(folder), target, segmenter.finish(one, logits)).names)

            on_threads(finish, targets, prepared, inferred)

    def segment_all() -> None:
        with tempfile.TemporaryDirectory() as folder:
            list(segment_targets(segmenter, targets, Path(folder), ThreadReader(), write, workers=threads))

    stages = {
        "reading": lambda: on_threads(lambda target: segmenter.prepare(target.source), targets),
        "inference": lambda: on_threads(lambda one: segmenter.infer([one]), prepared),
        "finishing": finish_all,
        "segment": segment_all,
    }
    times: dict[str, list[float]] = {name: [] for name in stages}
    for work in stages.values():
        seconds(work)  # warm up
    for _ in range(repeats):
        for name, work in stages.items():
            times[name].append(seconds(work))
    return with_shares({name: len(targets) / statistics.median(values) for name, values in times.items()})


def with_shares(rates: dict[str, float]) -> dict[str, float]:
    """``rates`` with what share of the slower stage, and of all work one after the other, the run has."""
    alone = [rate for name, rate in rates.items() if name != "segment"]
    run = rates["segment"]
    return {**rates, "of the slower stage": run / min(alone), "of all work": run * sum(1 / rate for rate in alone)}


def main() -> None:
    """Measure both settings and print them as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("folder", type=Path, nargs="?")
    source.add_argument("--made", type=int, metavar="SIDE")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--repeats", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made, Segmenter.load(arguments.model, threads=1) as segmenter:
        if arguments.made:
            make_originals(Path(made), arguments.made, stub=False)
        found = find_radiographs([arguments.folder or Path(made)], Path("out")).targets
        targets = tuple(Target(one.source, Path(str(turn)) / one.stem) for turn in range(PASSES) for one in found)
        settings = {"half each": max(1, available_cores() // 2), "default": available_cores()}
        result = {name: measure(segmenter, targets, threads, arguments.repeats) for name, threads in settings.items()}
    rounded = {name: {key: round(value, 2) for key, value in rates.items()} for name, rates in result.items()}
    print(json.dumps({"images": len(targets), "cores": available_cores(), "images per second": rounded}, indent=2))


if __name__ == "__main__":
    main()
