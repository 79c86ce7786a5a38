"""Memory of ``cxredge segment`` over a long run, as a plot and as figures.

    python tests/benchmarks/long_run.py [--images 10000] [--plot docs/long-run.png] [--workers N]

Makes 20 radiographs, links each under as many names as are asked for, segments all of them with the bundled
model and samples the resident memory of the process twice a second. Prints JSON: the medians of the second
and of the last tenth of the run, and their difference, which is what would grow.
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
from pathlib import Path

from cxredge.phantom import make_radiograph
from cxredge.sample import write_png

KINDS, SIDE = 20, 512
SECONDS_BETWEEN_SAMPLES = 0.5
PROGRAM = Path(sys.executable).with_name("cxredge")


def make_archive(folder: Path, images: int) -> None:
    """Write ``images`` names for 20 made radiographs of 16 bits, 500 a folder."""
    originals = [folder.with_name(f"made-{seed}.png") for seed in range(KINDS)]
    for seed, path in enumerate(originals):
        write_png(path, make_radiograph(seed, SIDE, SIDE - 32).pixels << 4)
    for number in range(images):
        path = folder / f"{number // 500:03}" / f"{number:06}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        os.link(originals[number % KINDS], path)


def mebibytes(process: int) -> float:
    """Resident memory of a process."""
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def sampled_run(archive: Path, output: Path, workers: int | None) -> tuple[list[tuple[float, float]], int]:
    """Samples (seconds, MiB) of a run, and the number of results."""
    more = [] if workers is None else ["--workers", str(workers)]
    command = [PROGRAM, "segment", archive, "-o", output, "--no-overlay", "--log-level", "error", *more]
    samples, started = [], time.monotonic()
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            samples.append((time.monotonic() - started, mebibytes(process.pid)))
            time.sleep(SECONDS_BETWEEN_SAMPLES)
    if process.returncode:
        raise SystemExit(f"segment ended with exit code {process.returncode}")
    with (output / "results.jsonl").open() as lines:
        return [(moment, memory) for moment, memory in samples if memory], sum(1 for _ in lines)


def draw(samples: list[tuple[float, float]], images: int, path: Path) -> None:
    """Plot the memory over time."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(6, 2.6), layout="constrained")
    axes.plot(*zip(*samples, strict=True), linewidth=1)
    axes.set(
        xlabel="seconds", ylabel="resident MiB", ylim=(0, None), title=f"cxredge segment, {images} made radiographs"
    )
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=80)


def main() -> None:
    """Run, print the figures and draw the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--workers", type=int)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "archive"
        archive.mkdir()
        make_archive(archive, arguments.images)
        samples, results = sampled_run(archive, Path(folder) / "out", arguments.workers)
    tenth = len(samples) // 10
    early = statistics.median(memory for _, memory in samples[tenth : 2 * tenth])
    late = statistics.median(memory for _, memory in samples[-tenth:])
    figures = {
        "images": results,
        "seconds": round(samples[-1][0], 1),
        "MiB in the second tenth": round(early, 1),
        "MiB in the last tenth": round(late, 1),
        "peak MiB": round(max(memory for _, memory in samples), 1),
        "bytes an image that stay": round((late - early) * (1 << 20) / (0.8 * results)),
    }
    print(json.dumps(figures, indent=2))
    if arguments.plot:
        draw(samples, results, arguments.plot)


if __name__ == "__main__":
    main()
