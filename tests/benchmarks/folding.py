"""Folding's gain on this machine's CPU, and ONNX Runtime's over PyTorch, in one run.

    python tests/benchmarks/folding.py [--repeats 15] [--threads 2] [--json FILE]

For the widths of ``edge`` and ``standard``, with random weights, one 256x256 image at a time: the
unfolded generator in PyTorch (eager), the network with the fold ``adain`` only in ONNX Runtime, and
the folded one in ONNX Runtime. The three take turns; medians are printed, and the ratios that the
project holds itself to: folded over unfolded at most 0.78, PyTorch over folded at least 2.2.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch

from cxredge.backends.onnxruntime import session_options
from cxredge_export.conversion import to_onnx
from cxredge_export.cost import macs
from cxredge_export.folding import FOLDS, fold, fold_code
from cxredge_train.networks import Generator, NetworkConfig, a_seg, initialise

WIDTHS = {"edge": 16, "standard": 32}
SIZE = 256
WARM_UP = 3
LARGEST_FOLDED_SHARE = 0.78
SMALLEST_GAIN_OVER_TORCH = 2.2
EAGER, UNFOLDED, FOLDED = "torch eager unfolded", "onnxruntime unfolded", "onnxruntime folded"


def in_session(model: onnx.ModelProto, threads: int, image: np.ndarray) -> Callable[[], object]:
    """One inference of ``model`` as the runtime's backend does it."""
    session = onnxruntime.InferenceSession(model.SerializeToString(), session_options(threads))
    return lambda: session.run(None, {session.get_inputs()[0].name: image})


def in_torch(generator: Generator, image: np.ndarray) -> Callable[[], object]:
    """One inference of the generator as it was trained."""
    tensor = torch.from_numpy(image)

    @torch.inference_mode()
    def run() -> object:
        return generator(tensor, a_seg())

    return run


def measure(width: int, threads: int, repeats: int) -> dict[str, float]:
    """Median milliseconds of the three, their ratios and the GMAC before and after."""
    torch.manual_seed(0)
    generator = Generator(NetworkConfig(width=width, input_size=SIZE)).eval()
    initialise(generator)
    network = fold_code(generator, None)
    before, after = to_onnx(network, SIZE), to_onnx(fold(network, FOLDS), SIZE)
    image = np.random.default_rng(0).uniform(-1, 1, (1, 1, SIZE, SIZE)).astype(np.float32)
    works = {
        EAGER: in_torch(generator, image),
        UNFOLDED: in_session(before, threads, image),
        FOLDED: in_session(after, threads, image),
    }
    times = interleaved(works, repeats)
    return {
        **{f"{name}, ms": round(value, 1) for name, value in times.items()},
        "folded / unfolded": round(times[FOLDED] / times[UNFOLDED], 3),
        "torch eager / folded": round(times[EAGER] / times[FOLDED], 2),
        "GMAC unfolded": round(macs(before) / 1e9, 2),
        "GMAC folded": round(macs(after) / 1e9, 2),
    }


def interleaved(works: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median milliseconds of each, all taking turns."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(WARM_UP + repeats):
        for name, work in works.items():
            started = time.perf_counter()
            work()
            if turn >= WARM_UP:
                times[name].append(1000 * (time.perf_counter() - started))
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Measure both widths, print them as JSON; exit code 1 if a ratio is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    found = {name: measure(width, arguments.threads, arguments.repeats) for name, width in WIDTHS.items()}
    text = json.dumps({"threads": arguments.threads, "repeats": arguments.repeats, **found}, indent=2)
    print(text)
    if arguments.json is not None:
        arguments.json.write_text(text + "\n", encoding="utf-8")
    missed = [
        name
        for name, one in found.items()
        if one["folded / unfolded"] > LARGEST_FOLDED_SHARE or one["torch eager / folded"] < SMALLEST_GAIN_OVER_TORCH
    ]
    raise SystemExit(f"missed: {', '.join(missed)}" if missed else 0)


if __name__ == "__main__":
    main()
