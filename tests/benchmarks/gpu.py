"""Everything that is to be measured on a GPU, in one go and within ten minutes.

    python tests/benchmarks/gpu.py -o gpu.json [--models FOLDER] [--seconds 560] [--only tests,engines,torch,segment]

1. The GPU and what is installed. 2. ``tests``: the tests in ``tests/gpu``. 3. ``engines``: networks of width 16, 32
and 64 in FP32, FP16 and INT8: build time, and latency at batch 1, 8 and 32 against the roofline floor. 4. ``torch``:
the same networks, unfolded, in PyTorch: eager FP16 and ``torch.compile`` FP16. 5. ``segment`` end to end against its
stages. What matters most comes first. Each step runs in a process of its own and within a time of its own; what it
has found is written to the file as it finds it, also where it fails, crashes or is stopped. A second call with
``--only`` and another file measures what the first had no time for. Without a GPU it says so and ends with exit code 1.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gpu_models import SIZE, make_generator, make_models, model_path
from gpu_steps import FAILED, Figures, Step, isolated

from cxredge.backends.tensorrt import TensorRTBackend
from cxredge.backends.tensorrt_engine import captures_itself
from cxredge.cuda import IMPLEMENTATIONS, installed
from cxredge.engine.device import Device, require_device
from cxredge.engine.flavour import Flavour, FlavourChoice, find_flavour
from cxredge.errors import CxredgeError

ROOT = Path(__file__).parents[2]
PARTS = ("tests", "engines", "torch", "segment")
BATCHES = (1, 8, 32)
PROFILE = (1, 8, 32)
WARM_UP, RUNS = 20, 200
SECONDS_A_SERIES = 1.5
SECONDS_OF_WARM_UP = 0.7
"""TensorRT for RTX compiles better kernels in the background."""
LIMITS = {"tests": 240.0, "engines": 150.0, "eager": 60.0, "torch.compile": 150.0, "segment": 180.0}
"""Seconds after which a step is stopped; one of ``tests`` is all tests, one of ``engines`` is one engine."""
LEAST = {"tests": 60.0, "engines": 30.0, "eager": 15.0, "torch.compile": 60.0, "segment": 30.0}
"""Seconds without which a step is not begun."""
PRECISION_ORDER = ("fp16", "int8", "fp32")
WIDTH_ORDER = (32, 16, 64)
"""What matters most is measured first."""
LINES = 150
"""Of the tests' output that are kept."""
AIM_MILLISECONDS, AIM_SINGLE, AIM_BATCH = 0.35, 3.0, 2.0
"""At batch 1 an engine is to need no longer than this, or than so many floors; at batch 32 so many floors."""


def percentiles(milliseconds: list[float]) -> dict[str, float]:
    """p50, p90 and p99."""
    return {f"p{p}": round(float(np.percentile(milliseconds, p)), 4) for p in (50, 90, 99)}


def repeated(work: Callable[[], float | None]) -> list[float]:
    """Milliseconds of ``work``, which gives its own time or is timed, until there are enough or time is up."""
    warm = time.perf_counter() + SECONDS_OF_WARM_UP
    for run in itertools.count():
        if run >= WARM_UP and time.perf_counter() >= warm:
            break
        work()
    times: list[float] = []
    until = time.perf_counter() + SECONDS_A_SERIES
    while len(times) < RUNS and (len(times) < 10 or time.perf_counter() < until):
        started = time.perf_counter()
        own = work()
        times.append(1e3 * (time.perf_counter() - started) if own is None else own)
    return times


def machine(device: Device, choice: FlavourChoice) -> Figures:
    """The GPU and the software; without a TensorRT the reason."""
    found: Figures = {
        "device": asdict(device),
        "libraries": [library for library, _ in IMPLEMENTATIONS if installed(library)],
        "python": sys.version.split()[0],
    }
    try:
        flavour = find_flavour(choice)
    except CxredgeError as error:
        return {**found, "flavour": {FAILED: str(error)}}
    told = {"name": flavour.name, "version": flavour.version, "capabilities": flavour.capabilities}
    return {**found, "flavour": told, "captures_graphs_itself": captures_itself(flavour)}


def gpu_tests() -> Iterator[Figures]:
    """Run ``tests/gpu``; figures and lines are told as they come."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", str(ROOT / "tests" / "gpu")]
        environment = {**os.environ, "CXREDGE_GPU_REPORT": str(report), "PYTHONUNBUFFERED": "1"}
        lines: list[str] = []
        with subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        ) as process:
            for line in process.stdout or ():
                lines.append(line.rstrip())
                yield {"lines": lines[-LINES:], "figures": json.loads(report.read_text()) if report.is_file() else {}}
        yield {
            "exit_code": process.returncode,
            "lines": lines[-LINES:],
            "figures": json.loads(report.read_text()) if report.is_file() else {},
        }


def build(model: Path, flavour: Flavour, device: Device, plan: Path, precision: str) -> float:
    """Build an engine without a parity run, which random weights are not worth; gives the seconds."""
    from cxredge.engine.order import Order, carry_out
    from cxredge.engine.record import file_sha256

    order = Order(file_sha256(model), flavour, device.compute_capability, PROFILE, precision, device)
    started = time.perf_counter()
    carry_out(order, lambda: model, output=plan)
    return time.perf_counter() - started


def latency(backend: TensorRTBackend, model: Path, batch: int, device: Device) -> dict[str, Any]:
    """Times of one batch size, images a second on all lanes, and the roofline floor."""
    inputs = np.random.default_rng(0).uniform(-1, 1, (batch, 1, SIZE, SIZE)).astype(np.float32)
    stages: list[dict[str, float]] = []

    def run() -> None:
        stages.append(backend.timed_run(inputs)[1])

    total = repeated(run)
    measured = {stage: percentiles([one[stage] for one in stages[-len(total) :]]) for stage in stages[0]}
    floor = floor_milliseconds(model, batch, device)
    compute = measured["compute"]["p50"]
    return {
        "total": percentiles(total),
        "stages": measured,
        "images_per_second": rate(backend, inputs),
        "floor": floor,
        "compute/floor": None if floor is None else round(compute / floor, 3),
        "device_bytes": backend.device_bytes(),
    }


def rate(backend: TensorRTBackend, inputs: np.ndarray) -> float:
    """Images a second with as many threads as there are lanes."""
    runs = max(8, 256 // len(inputs))
    started = time.perf_counter()
    with ThreadPoolExecutor(backend.lanes) as pool:
        list(pool.map(lambda _: backend.run(inputs), range(runs)))
    return round(runs * len(inputs) / (time.perf_counter() - started), 1)


def floor_milliseconds(model: Path, batch: int, device: Device) -> float | None:
    """The roofline floor of a model on a GPU whose figures are known."""
    from cxredge.benchmark.roofline import find_gpu_roof, floor_of
    from cxredge_calibration.model_file import read_model
    from cxredge_export.roofline_cost import layer_costs

    roof = find_gpu_roof(device.name)
    floor = None if roof is None else floor_of(layer_costs(read_model(model)[0], batch), roof)
    return None if floor is None else float(f"{floor.milliseconds:.4g}")


def engine(models: Path, width: int, precision: str, choice: FlavourChoice) -> Iterator[Figures]:
    """Build and measure one engine, also without CUDA graphs at batch 1."""
    device, flavour = require_device(), find_flavour(choice)
    make_models(models, width)
    model = model_path(models, width, precision)
    with tempfile.TemporaryDirectory() as folder:
        plan = Path(folder) / "engine.plan"
        figures: Figures = {"build_seconds": round(build(model, flavour, device, plan, precision), 2)}
        yield figures
        for graphs, key in ((True, "batches"), (False, "without graphs")):
            with closing(TensorRTBackend(plan, graphs=graphs)) as backend:
                for batch in BATCHES if graphs else BATCHES[:1]:
                    figures.setdefault(key, {})[batch] = latency(backend, model, batch, device)
                    yield figures


def torch_network(width: int, *, compiled: bool) -> Iterator[Figures]:
    """Milliseconds of the unfolded network in FP16 on the GPU, and to the GPU and back."""
    import torch

    from cxredge_export.folding import fold_code

    if not torch.cuda.is_available():
        raise RuntimeError(f"PyTorch {torch.__version__} has no CUDA")
    unfolded = fold_code(make_generator(width), None).cuda().half()
    network = torch.compile(unfolded, dynamic=False) if compiled else unfolded
    found: Figures = {"version": torch.__version__}
    for batch in BATCHES:
        host = torch.rand(batch, 1, SIZE, SIZE).pin_memory()
        images = host.cuda().half()

        def compute(images: Any = images) -> float:
            events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            events[0].record()
            network(images)
            events[1].record()
            torch.cuda.synchronize()
            return float(events[0].elapsed_time(events[1]))

        def whole(host: Any = host) -> None:
            network(host.cuda(non_blocking=True).half()).float().cpu()

        with torch.inference_mode():
            found[batch] = {"compute": percentiles(repeated(compute)), "total": percentiles(repeated(whole))}
        yield found


def segment(choice: FlavourChoice) -> Iterator[Figures]:
    """``segment`` on an engine of the bundled model, against decoding alone and inference alone."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "XDG_CACHE_HOME": folder}
        throughput = str(ROOT / "tests" / "benchmarks" / "throughput.py")
        steps = {
            "build": [sys.executable, "-m", "cxredge", "build-engine", "--flavour", choice],
            "sample": [sys.executable, "-m", "cxredge", "sample", f"{folder}/scans"],
            "throughput": [sys.executable, throughput, f"{folder}/scans", "--repeats", "3"],
        }
        figures: Figures = {}
        for name, step in steps.items():
            done = subprocess.run(step, env=environment, capture_output=True, text=True)
            if done.returncode:
                raise RuntimeError("; ".join((done.stdout + done.stderr).splitlines()[-5:]))
            figures[name] = json.loads(done.stdout) if name == "throughput" else done.stdout.splitlines()
            yield figures


def steps_of(parts: tuple[str, ...], models: Path, choice: FlavourChoice) -> Iterator[tuple[str, str, str, Step]]:
    """Part of the result, name in it, kind of limit, and what to do, in the order of importance."""
    if "tests" in parts:
        yield "tests", "tests/gpu", "tests", gpu_tests
    if "engines" in parts:
        for width, precision in itertools.product(WIDTH_ORDER, PRECISION_ORDER):
            yield "engines", f"w{width} {precision}", "engines", partial(engine, models, width, precision, choice)
    if "torch" in parts:
        for compiled, width in itertools.product((False, True), WIDTH_ORDER):
            kind = "torch.compile" if compiled else "eager"
            yield "torch", f"w{width} {kind} fp16", kind, partial(torch_network, width, compiled=compiled)
    if "segment" in parts:
        yield "segment", "bundled", "segment", partial(segment, choice)


def parse_parts(value: str) -> tuple[str, ...]:
    """Names of :data:`PARTS` separated by commas."""
    named = tuple(value.split(","))
    if unknown := set(named) - set(PARTS):
        raise argparse.ArgumentTypeError(f"{sorted(unknown)[0]!r} is not one of {', '.join(PARTS)}")
    return named


def main() -> None:
    """Do it all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--models", type=Path, help="folder of networks made by gpu_models.py")
    parser.add_argument("--seconds", type=float, default=560, help="in which it has to be done")
    parser.add_argument("--flavour", choices=("auto", "tensorrt", "tensorrt-rtx"), default="auto")
    parser.add_argument("--only", type=parse_parts, default=PARTS, help="parts, with commas")
    arguments = parser.parse_args()
    end = time.monotonic() + arguments.seconds
    try:
        device = require_device()
    except CxredgeError as error:
        sys.exit(f"nothing can be measured here: {error}")
    result: dict[str, Any] = {"machine": machine(device, arguments.flavour), **{part: {} for part in arguments.only}}

    def keep() -> None:
        part = arguments.output.with_suffix(".part")
        part.write_text(json.dumps(result, indent=2, default=str))
        part.replace(arguments.output)

    keep()
    with tempfile.TemporaryDirectory() as folder:
        for part, name, kind, step in steps_of(arguments.only, arguments.models or Path(folder), arguments.flavour):
            left = end - time.monotonic()
            print(f"{left:4.0f} s left: {part} {name}", flush=True)
            if left < LEAST[kind]:
                result[part][name] = "left out: no time was left"
                continue
            for figures in isolated(step, min(LIMITS[kind], left)):
                result[part][name] = figures
                keep()
            if FAILED in result[part][name]:
                print(f"  {result[part][name][FAILED]}", flush=True)
    keep()
    print(json.dumps(summary(result), indent=2))


def summary(result: dict[str, Any]) -> dict[str, Any]:
    """The median latencies in a few lines, and whether they reach what is aimed at."""
    rows: dict[str, Any] = {}
    for name, figures in {**result.get("engines", {}), **result.get("torch", {})}.items():
        if not isinstance(figures, dict):
            rows[name] = figures
            continue
        batches = figures.get("batches", figures)
        rows[name] = {str(batch): told(batch, batches[batch]) for batch in BATCHES if batch in batches}
        if FAILED in figures:
            rows[name][FAILED] = figures[FAILED]
    return rows


def told(batch: int, figures: Figures) -> str:
    """One line of the summary."""
    compute = figures.get("stages", figures)["compute"]["p50"]
    line = f"compute {compute} ms of {figures['total']['p50']}"
    floor = figures.get("floor")
    if floor is None:
        return line
    reached = compute <= AIM_BATCH * floor
    if batch == 1:
        reached = compute <= max(AIM_SINGLE * floor, AIM_MILLISECONDS)
    aim = "" if batch == BATCHES[1] else f", the aim is {'reached' if reached else 'missed'}"
    return f"{line}, {compute / floor:.2f} times the floor of {floor} ms{aim}"


if __name__ == "__main__":
    main()
