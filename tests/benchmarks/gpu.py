"""Everything that is to be measured on a GPU, in one go and within ten minutes.

    python tests/benchmarks/gpu.py -o gpu.json [--models FOLDER] [--seconds 560]

1. The GPU and what is installed. 2. ``tests/gpu``. 3. Engines of networks of width 16, 32 and 64 in FP32, FP16
and INT8: build time, and latency at batch 1, 8 and 32 against the roofline floor. 4. The same networks, unfolded,
in PyTorch: eager FP16 and ``torch.compile`` FP16, where PyTorch with CUDA is installed. 5. ``segment`` end to end
against its stages. Each step is written to the file as it is done; what no time is left for is named there.
Without a GPU it says so and ends with exit code 1.
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
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from gpu_models import SIZE, make_generator, make_models, model_path

from cxredge.backends.tensorrt import TensorRTBackend
from cxredge.backends.tensorrt_engine import captures_itself
from cxredge.cuda import IMPLEMENTATIONS, installed
from cxredge.engine.device import Device, require_device
from cxredge.engine.flavour import Flavour, find_flavour
from cxredge.errors import CxredgeError

ROOT = Path(__file__).parents[2]
BATCHES = (1, 8, 32)
PROFILE = (1, 8, 32)
WARM_UP, RUNS = 20, 200
SECONDS_A_SERIES = 1.5
SECONDS_OF_WARM_UP = 0.7
"""TensorRT for RTX compiles better kernels in the background."""
TESTS_SECONDS = 240
PRECISION_ORDER = ("fp16", "int8", "fp32")
WIDTH_ORDER = (32, 16, 64)
"""What matters most is measured first."""


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


def machine(device: Device, flavour: Flavour) -> dict[str, Any]:
    """The GPU and the software."""
    return {
        "device": asdict(device),
        "flavour": {"name": flavour.name, "version": flavour.version, "capabilities": flavour.capabilities},
        "captures_graphs_itself": captures_itself(flavour),
        "libraries": [library for library, _ in IMPLEMENTATIONS if installed(library)],
        "python": sys.version.split()[0],
    }


def gpu_tests(seconds: float) -> dict[str, Any]:
    """Run ``tests/gpu``."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider", str(ROOT / "tests" / "gpu")]
        environment = {**os.environ, "CXREDGE_GPU_REPORT": str(report)}
        try:
            done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds)
            output, code = done.stdout + done.stderr, done.returncode
        except subprocess.TimeoutExpired as error:
            output, code = str(error.stdout), None
        figures = json.loads(report.read_text()) if report.is_file() else {}
    return {"exit_code": code, "lines": output.splitlines()[-80:], "figures": figures}


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
    return None if floor is None else round(floor.milliseconds, 4)


def engines(models: Path, flavour: Flavour, device: Device, left: Callable[[], float]) -> Iterator[tuple[str, Any]]:
    """Figures of every width and precision, without and with CUDA graphs at batch 1."""
    for width in WIDTH_ORDER:
        for precision in PRECISION_ORDER:
            name = f"w{width} {precision}"
            if left() < 45:
                yield name, "left out: no time was left"
                continue
            make_models(models, width)
            model = model_path(models, width, precision)
            with tempfile.TemporaryDirectory() as folder:
                yield name, engine_figures(model, flavour, device, Path(folder) / "engine.plan", precision)


def engine_figures(model: Path, flavour: Flavour, device: Device, plan: Path, precision: str) -> dict[str, Any]:
    """Build and measure one engine; what fails is told in place of figures."""
    try:
        figures: dict[str, Any] = {"build_seconds": round(build(model, flavour, device, plan, precision), 2)}
        for graphs in (True, False):
            backend = TensorRTBackend(plan, graphs=graphs)
            sizes = BATCHES if graphs else BATCHES[:1]
            key = "batches" if graphs else "without graphs"
            figures[key] = {batch: latency(backend, model, batch, device) for batch in sizes}
            backend.close()
    except CxredgeError as error:
        return {"failed": str(error)}
    return figures


def torch_figures(width: int, *, compiled: bool) -> dict[str, Any]:
    """Milliseconds of the unfolded network in FP16 on the GPU, and to the GPU and back."""
    import torch

    from cxredge_train.networks import a_seg

    generator = make_generator(width).cuda().half()
    network = torch.compile(generator, dynamic=False) if compiled else generator
    found = {}
    for batch in BATCHES:
        host = torch.rand(batch, 1, SIZE, SIZE).pin_memory()
        images = host.cuda().half()

        def compute(images: Any = images) -> float:
            events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            events[0].record()
            network(images, a_seg())
            events[1].record()
            torch.cuda.synchronize()
            return float(events[0].elapsed_time(events[1]))

        def whole(host: Any = host) -> None:
            logits = network(host.cuda(non_blocking=True).half(), a_seg())
            (logits[:, 1] - logits[:, 0]).float().cpu()

        with torch.inference_mode():
            found[batch] = {"compute": percentiles(repeated(compute)), "total": percentiles(repeated(whole))}
    return found


def torches(left: Callable[[], float]) -> Iterator[tuple[str, Any]]:
    """Figures of PyTorch, the compiled ones last because compiling takes long."""
    try:
        import torch
    except ModuleNotFoundError:
        yield "all", "left out: PyTorch is not installed"
        return
    if not torch.cuda.is_available():
        yield "all", "left out: this PyTorch has no CUDA"
        return
    for compiled in (False, True):
        for width in WIDTH_ORDER:
            name = f"w{width} {'torch.compile' if compiled else 'eager'} fp16"
            if left() < (60 if compiled else 15):
                yield name, "left out: no time was left"
                continue
            try:
                yield name, torch_figures(width, compiled=compiled)
            except RuntimeError as error:  # base of what PyTorch raises
                yield name, {"failed": str(error).strip().splitlines()[0]}


def segment_figures(seconds: float) -> dict[str, Any]:
    """``segment`` on an engine of the bundled model, against decoding alone and inference alone."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "XDG_CACHE_HOME": folder}
        steps = [
            [sys.executable, "-m", "cxredge", "build-engine"],
            [sys.executable, "-m", "cxredge", "sample", f"{folder}/scans"],
            [sys.executable, str(ROOT / "tests" / "benchmarks" / "throughput.py"), f"{folder}/scans", "--repeats", "3"],
        ]
        for step in steps:
            try:
                done = subprocess.run(step, env=environment, capture_output=True, text=True, timeout=seconds)
            except subprocess.TimeoutExpired:
                return {"failed": "no time was left"}
            if done.returncode:
                return {"failed": (done.stdout + done.stderr).splitlines()[-5:]}
        figures: dict[str, Any] = json.loads(done.stdout)
        return figures


def main() -> None:
    """Do it all."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--models", type=Path, help="folder of networks made by gpu_models.py")
    parser.add_argument("--seconds", type=float, default=560, help="in which it has to be done")
    parser.add_argument("--flavour", choices=("auto", "tensorrt", "tensorrt-rtx"), default="auto")
    parser.add_argument("--no-tests", action="store_true", help="leave tests/gpu out")
    arguments = parser.parse_args()
    end = time.monotonic() + arguments.seconds
    try:
        device, flavour = require_device(), find_flavour(arguments.flavour)
    except CxredgeError as error:
        sys.exit(f"nothing can be measured here: {error}")
    result: dict[str, Any] = {"machine": machine(device, flavour), "engines": {}, "torch": {}}

    def left() -> float:
        return end - time.monotonic()

    def keep() -> None:
        arguments.output.write_text(json.dumps(result, indent=2, default=str))
        print(f"{left():.0f} s left", flush=True)

    keep()
    if not arguments.no_tests:
        result["tests"] = gpu_tests(min(TESTS_SECONDS, left()))
        keep()
    with tempfile.TemporaryDirectory() as folder:
        for name, figures in engines(arguments.models or Path(folder), flavour, device, left):
            result["engines"][name] = figures
            keep()
        for name, figures in torches(left):
            result["torch"][name] = figures
            keep()
    if left() > 30:
        result["segment"] = segment_figures(left())
        keep()
    print(json.dumps(summary(result), indent=2))


def summary(result: dict[str, Any]) -> dict[str, Any]:
    """The median latencies in a few lines."""
    rows = {}
    for name, figures in result["engines"].items():
        if isinstance(figures, dict) and "batches" in figures:
            rows[name] = {
                batch: f"compute {one['stages']['compute']['p50']} ms of {one['total']['p50']}, floor {one['floor']}"
                for batch, one in figures["batches"].items()
            }
    return rows


if __name__ == "__main__":
    main()
