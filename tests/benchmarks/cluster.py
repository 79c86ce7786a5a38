"""Throughput of ``cxredge segment --ray`` against that of ``cxredge segment``, on the same cores of this machine.

    taskset -c 0,1 python tests/benchmarks/cluster.py [--images 400] [--repeats 3]

Ray is started for each run with one node of as many cores as this process may use. Two rates are taken: over
the whole command, which includes the start of Ray and of its actors, and from the first entry of the journal to the
last, which is what a long run comes to. Runs are interleaved, medians are printed. Masks are written, no overlays;
the radiographs are made (1024 x 960, 16 bits, PNG).
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from cxredge.phantom import make_radiograph
from cxredge.pipeline import available_cores

PROGRAM = Path(sys.executable).with_name("cxredge")
HEIGHT, WIDTH = 1024, 960
MODES = {"one machine": [], "one machine, reading in processes": ["--timeout", "120"], "ray": ["--ray"]}
"""Options of the runs; actors always read in processes."""


def write_radiographs(folder: Path, count: int) -> Path:
    """Write ``count`` made radiographs."""
    folder.mkdir()
    base = [make_radiograph(seed, HEIGHT, WIDTH).pixels for seed in range(4)]
    for number in range(count):
        pixels = (base[number % 4] + np.uint16(number % 97)) << 3
        Image.fromarray(pixels.astype(np.uint16)).save(folder / f"{number:05}.png", compress_level=1)
    return folder


def entries(journal: Path) -> int:
    """Entries of a journal that is being written."""
    return max(0, journal.read_bytes().count(b"\n") - 1) if journal.exists() else 0


def rates(scans: Path, options: list[str], count: int) -> tuple[float, float]:
    """Images per second of one run: of the command, and from the first entry to the last."""
    with tempfile.TemporaryDirectory() as folder:
        journal = Path(folder) / ".cxredge" / "journal.jsonl"
        command = [PROGRAM, "segment", scans, "-o", folder, "--no-overlay", *options]
        started, first, last, done = time.monotonic(), 0.0, 0.0, 0
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            while process.poll() is None:
                now, before, done = time.monotonic(), done, entries(journal)
                if done and not first:
                    first, at_first = now, done
                if done != before:
                    last = now
                time.sleep(0.05)
            if process.returncode or last <= first:
                raise RuntimeError(process.communicate()[1])
        return count / (time.monotonic() - started), (count - at_first) / (last - first)


def main() -> None:
    """Measure and print the rates as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        scans = write_radiographs(Path(folder) / "scans", arguments.images)
        measured: dict[str, list[tuple[float, float]]] = {mode: [] for mode in MODES}
        for _ in range(arguments.repeats):
            for mode, options in MODES.items():
                measured[mode].append(rates(scans, options, arguments.images))
    medians = {mode: [statistics.median(one) for one in zip(*runs, strict=True)] for mode, runs in measured.items()}
    single, ray = medians["one machine"], medians["ray"]
    result = {
        "images": arguments.images,
        "cores": available_cores(),
        "images per second": {mode: {"command": total, "steady": rest} for mode, (total, rest) in medians.items()},
        "ray / one machine": {"command": ray[0] / single[0], "steady": ray[1] / single[1]},
    }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
