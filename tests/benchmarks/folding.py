"""Folding's gain on this machine's CPU, and ONNX Runtime's over PyTorch, in one run.

    python tests/benchmarks/folding.py [--repeats 15] [--threads 2] [--folds all] [--json FILE]

For the widths of ``edge`` and ``standard``, with random weights, one 256x256 image at a time: the
network with the fold ``adain`` only in PyTorch (eager) and in ONNX Runtime, and the folded one in ONNX
Runtime. Each has a process of its own, so that no library's threads disturb another's;
they take turns, in each turn one inference to warm up and one that is timed. Medians are printed, and the ratios
that the project holds itself to: folded over unfolded at most 0.78, PyTorch over folded at least 2.2.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from cxredge.backends.onnxruntime import session_options
from cxredge_export.conversion import to_onnx
from cxredge_export.cost import macs
from cxredge_export.folding import fold, fold_code, parse_folds
from cxredge_train.networks import Generator, NetworkConfig, initialise

WIDTHS = {"edge": 16, "standard": 32}
SIZE = 256
WARM_UP = 3
LARGEST_FOLDED_SHARE = 0.78
SMALLEST_GAIN_OVER_TORCH = 2.2
EAGER, UNFOLDED, FOLDED = "torch eager unfolded", "onnxruntime unfolded", "onnxruntime folded"


Work = Callable[[], object]


def image() -> np.ndarray:
    """The network input ``(1, 1, 256, 256)`` of all."""
    return np.random.default_rng(0).uniform(-1, 1, (1, 1, SIZE, SIZE)).astype(np.float32)


def made_generator(width: int) -> Generator:
    """The generator of a width, with the same random weights each time."""
    torch.manual_seed(0)
    generator = Generator(NetworkConfig(width=width, input_size=SIZE)).eval()
    initialise(generator)
    return generator


def in_session(model: bytes, threads: int) -> Work:
    """One inference of a model as the runtime's backend does it."""
    session = onnxruntime.InferenceSession(model, session_options(threads))
    return partial(session.run, None, {session.get_inputs()[0].name: image()})


def in_torch(width: int, threads: int) -> Work:
    """One inference of the unfolded network."""
    torch.set_num_threads(threads)
    network, tensor = fold_code(made_generator(width), None), torch.from_numpy(image())

    @torch.inference_mode()
    def run() -> object:
        return network(tensor)

    return run


def serve(asked: Connection, prepare: Callable[[], Work]) -> None:
    """Time one inference whenever asked, until the other end is closed."""
    work = prepare()
    while True:
        try:
            asked.recv()
        except EOFError:
            return
        work()
        started = time.perf_counter()
        work()
        asked.send(1000 * (time.perf_counter() - started))


def measure(width: int, threads: int, repeats: int, folds: tuple[str, ...]) -> dict[str, float]:
    """Median milliseconds of the three, their ratios and the GMAC before and after."""
    network = fold_code(made_generator(width), None)
    before, after = to_onnx(network, SIZE), to_onnx(fold(network, folds), SIZE)
    times = interleaved(
        {
            EAGER: partial(in_torch, width, threads),
            UNFOLDED: partial(in_session, before.SerializeToString(), threads),
            FOLDED: partial(in_session, after.SerializeToString(), threads),
        },
        repeats,
    )
    return {
        **{f"{name}, ms": round(value, 1) for name, value in times.items()},
        "folded / unfolded": round(times[FOLDED] / times[UNFOLDED], 3),
        "torch eager / folded": round(times[EAGER] / times[FOLDED], 2),
        "GMAC unfolded": round(macs(before) / 1e9, 2),
        "GMAC folded": round(macs(after) / 1e9, 2),
    }


def interleaved(works: Mapping[str, Callable[[], Work]], repeats: int) -> dict[str, float]:
    """Median milliseconds of each, all taking turns."""
    context = get_context("spawn")
    times: dict[str, list[float]] = {name: [] for name in works}
    with ExitStack() as opened:
        connections: dict[str, Connection] = {}
        for name, prepare in works.items():
            connections[name], other = context.Pipe()
            process = context.Process(target=serve, args=(other, prepare))
            process.start()
            other.close()
            opened.callback(process.join)
            opened.callback(connections[name].close)
        for turn in range(WARM_UP + repeats):
            for name, connection in connections.items():
                connection.send(None)
                spent = connection.recv()
                if turn >= WARM_UP:
                    times[name].append(spent)
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Measure both widths, print them as JSON; exit code 1 if a ratio is missed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--folds", type=parse_folds, default="all", help="as cxredge export takes them")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    settings = {name: getattr(arguments, name) for name in ("threads", "repeats", "folds")}
    found = {name: measure(width, **settings) for name, width in WIDTHS.items()}
    text = json.dumps({**settings, **found}, indent=2)
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
