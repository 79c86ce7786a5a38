"""Memory of ``cxredge segment`` over a long run, as a plot and as figures.

    python tests/benchmarks/long_run.py [--images 10000] [--side 320] [--plot docs/long-run.png] [--workers N]
    python tests/benchmarks/long_run.py --stub --images 100000

Makes 20 radiographs, links each under as many names as are asked for, segments all of them with the bundled
model and samples the resident memory of the process twice a second. ``--stub`` takes arrays of 32x32 pixels and a
network of one convolution instead, which leaves what a run itself keeps: the list of inputs, the journal,
the results. Prints JSON: the medians of the second and of the last tenth of the run, and their difference, which
is what would grow. ``--stub`` needs the package onnx, ``--plot`` matplotlib.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cxredge.contract import CONTRACT_KEY, Contract
from cxredge.phantom import make_radiograph
from cxredge.sample import write_png

KINDS, SIDE = 20, 320
STUB_SIDE, STUB_INPUT = 32, 64
WEIGHTS: dict[str, list[object]] = {"weight": [[[[-1.0]]]], "bias": [-0.2]}
"""Of the stub: dark pixels are lung."""
SECONDS_BETWEEN_SAMPLES = 0.5
PROGRAM = Path(sys.executable).with_name("cxredge")


@dataclass(frozen=True)
class Sample:
    """A moment of a run: seconds since its start, resident MiB."""

    seconds: float
    mebibytes: float


def make_originals(folder: Path, side: int, *, stub: bool) -> list[Path]:
    """Write 20 made radiographs of 16 bits, as PNG or, for the stub, as tiny NPY arrays."""
    paths = [folder / f"made-{seed}{'.npy' if stub else '.png'}" for seed in range(KINDS)]
    for seed, path in enumerate(paths):
        if stub:
            np.save(path, make_radiograph(seed, STUB_SIDE, STUB_SIDE).pixels)
        else:
            write_png(path, make_radiograph(seed, side, side - side // 16).pixels << 4)
    return paths


def make_archive(folder: Path, images: int, originals: list[Path]) -> None:
    """Link ``originals`` under ``images`` names, 500 a folder."""
    for number in range(images):
        original = originals[number % KINDS]
        path = folder / f"{number // 500:03}" / f"{number:06}{original.suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(original, path)


def make_stub(path: Path) -> Path:
    """Write a model of one convolution that calls dark pixels lung."""
    from onnx import TensorProto, helper, numpy_helper

    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", 1, STUB_INPUT, STUB_INPUT]) for name in ("x", "y")
    ]
    weights = [numpy_helper.from_array(np.array(value, np.float32), name) for name, value in WEIGHTS.items()]
    graph = helper.make_graph([helper.make_node("Conv", ["x", *WEIGHTS], ["y"])], "stub", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    contract = Contract(name="stub", width=1, input_size=STUB_INPUT, code="a_seg", licence="CC0-1.0")
    helper.set_model_props(model, {CONTRACT_KEY: contract.to_json()})
    path.write_bytes(model.SerializeToString())
    return path


def mebibytes(process: int) -> float:
    """Resident memory of a process."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def sampled_run(archive: Path, output: Path, options: list[str | Path]) -> list[Sample]:
    """Samples of a run."""
    command = [PROGRAM, "segment", archive, "-o", output, "--log-level", "error", *options]
    samples, started = [], time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            samples.append(Sample(time.monotonic() - started, mebibytes(process.pid)))
            time.sleep(SECONDS_BETWEEN_SAMPLES)
    if process.returncode:
        raise SystemExit(f"segment ended with exit code {process.returncode}")
    return [sample for sample in samples if sample.mebibytes]


def figures(samples: list[Sample], results: int) -> dict[str, float]:
    """What is printed of a run."""
    tenth = len(samples) // 10
    early = statistics.median(sample.mebibytes for sample in samples[tenth : 2 * tenth])
    late = statistics.median(sample.mebibytes for sample in samples[-tenth:])
    return {
        "images": results,
        "seconds": round(samples[-1].seconds, 1),
        "MiB in the second tenth": round(early, 1),
        "MiB in the last tenth": round(late, 1),
        "peak MiB": round(max(sample.mebibytes for sample in samples), 1),
        "bytes an image that stay": round((late - early) * (1 << 20) / (0.8 * results)),
    }


def draw(samples: list[Sample], title: str, path: Path) -> None:
    """Plot the memory over time."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    drawing, axes = pyplot.subplots(figsize=(6, 2.6), layout="constrained")
    axes.plot([sample.seconds for sample in samples], [sample.mebibytes for sample in samples], linewidth=1)
    axes.set(xlabel="seconds", ylabel="resident MiB", ylim=(0, None), title=title)
    axes.grid(alpha=0.3)
    drawing.savefig(path, dpi=80)


def main() -> None:
    """Run, print the figures and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=SIDE, help="height of the radiographs in pixels")
    parser.add_argument("--stub", action="store_true", help="tiny arrays and a network of one convolution")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--workers", type=int)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, archive = Path(name), Path(name) / "archive"
        make_archive(archive, arguments.images, make_originals(folder, arguments.side, stub=arguments.stub))
        options: list[str | Path] = ["--model", make_stub(folder / "stub.onnx")] if arguments.stub else []
        options += [] if arguments.workers is None else ["--workers", str(arguments.workers)]
        samples = sampled_run(archive, folder / "out", options)
        with (folder / "out" / "results.jsonl").open() as lines:
            results = sum(1 for _ in lines)
    print(json.dumps(figures(samples, results), indent=2))
    if arguments.plot:
        kind = f"{STUB_SIDE}x{STUB_SIDE} arrays, stub" if arguments.stub else "made radiographs"
        draw(samples, f"cxredge segment, {results} {kind}", arguments.plot)


if __name__ == "__main__":
    main()
