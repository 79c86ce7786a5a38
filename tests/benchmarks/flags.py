"""How often each quality flag is given, on untouched test radiographs and on ones that were spoiled on purpose.

    python tests/benchmarks/flags.py DATASET... [--model FILE] [--json FILE]

DATASETS are folders with images/ and manifest.csv, of which the test rows are taken. Flags that come from a
header are not counted. What is no chest radiograph is drawn here, or is test data of pydicom.
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from pydicom.data import get_testdata_file
from rich.console import Console
from rich.table import Table

from cxredge import CxredgeError, Radiograph, Segmenter, read_radiograph
from cxredge.data.dataset import open_dataset
from cxredge.evaluation.evaluate import DEFAULT_SPLITS
from cxredge.libraries.open_cv import cv2
from cxredge.quality.flags import FLAGS
from cxredge.quality.reference import (
    BEYOND_IMAGE,
    FRAGMENTED,
    HUGE_LUNG,
    INVERTED_POLARITY,
    LOW_MARGIN,
    NOT_FRONTAL,
    OUT_OF_DISTRIBUTION,
    RAGGED,
    TINY_LUNG,
    TOUCHES_BORDER,
    UNUSUAL_SHAPE,
)

AFTERWARDS = ("rotated by 45", "upside down", "upper third only")
"""Ways that were added after the descriptions had been chosen, and not looked at before."""
ROTATED = ("rotated by 90", "rotated by 180", "rotated by 270")
BLANK = ("left half black", "lower half black", "upper half white")
ONE_LUNG_CROPS = ("left half only", "right half only")
ZOOMED, INVERTED, NOISY, NO_CHEST = "middle quarter only", "inverted", "noise added", "no chest radiograph"
EXPECTED = {
    INVERTED_POLARITY: (INVERTED,),
    NOT_FRONTAL: (*ROTATED, NO_CHEST),
    OUT_OF_DISTRIBUTION: (NOISY, NO_CHEST),
    UNUSUAL_SHAPE: (*ONE_LUNG_CROPS, ZOOMED),
    TINY_LUNG: ONE_LUNG_CROPS,
    HUGE_LUNG: (ZOOMED,),
    TOUCHES_BORDER: (ZOOMED,),
    BEYOND_IMAGE: BLANK,
    RAGGED: ROTATED,
    FRAGMENTED: ROTATED,
    LOW_MARGIN: ROTATED,
}
"""What each flag should find; precision is against all untouched radiographs."""
MODALITIES = ("CT_small.dcm", "MR_small.dcm", "JPEG2000.dcm", "liver_1frame.dcm", "J2K_pixelrep_mismatch.dcm")
"""pydicom's files of other modalities; what cannot be read as a radiograph is passed over."""


def spoiled(pixels: np.ndarray, seed: int) -> Iterator[tuple[str, np.ndarray]]:
    """One radiograph, spoiled in each way."""
    height, width = pixels.shape
    black, white = pixels.min(), pixels.max()
    for turns, name in enumerate(ROTATED, 1):
        yield name, np.rot90(pixels, turns).copy()
    yield INVERTED, white - pixels + black
    yield ONE_LUNG_CROPS[0], pixels[:, : width // 2].copy()
    yield ONE_LUNG_CROPS[1], pixels[:, width // 2 :].copy()
    left, lower, upper = pixels.copy(), pixels.copy(), pixels.copy()
    left[:, : width // 2], lower[height // 2 :], upper[: height // 2] = black, black, white
    yield from zip(BLANK, (left, lower, upper), strict=True)
    yield ZOOMED, pixels[height // 4 : -height // 4, width // 4 : -width // 4].copy()
    centre = ((width - 1) / 2, (height - 1) / 2)
    yield AFTERWARDS[0], cv2.warpAffine(pixels, cv2.getRotationMatrix2D(centre, 45, 1), (width, height))
    yield AFTERWARDS[1], pixels[::-1].copy()
    yield AFTERWARDS[2], pixels[: height // 3].copy()
    span = float(white) - float(black)
    yield NOISY, pixels + np.random.default_rng(seed).normal(0, 0.4 * span, pixels.shape)


def drawn() -> Iterator[np.ndarray]:
    """Pictures that are no chest radiographs: noise, gradients, shapes, clouds."""
    rng = np.random.default_rng(1)
    rows, columns = np.mgrid[:256, :256].astype(np.float32)
    for _ in range(10):
        yield rng.normal(0, 1, (256, 256))
        yield rows * rng.normal() + columns * rng.normal() + rng.normal(0, 5, (256, 256))
        yield np.hypot(rows - rng.uniform(0, 256), columns - rng.uniform(0, 256)) * rng.choice([-1, 1])
        yield ((rows // rng.integers(8, 64) + columns // rng.integers(8, 64)) % 2) * 100 + rng.normal(0, 3, (256, 256))
        canvas = np.zeros((256, 256), np.float32)
        for _ in range(12):
            centre, size = rng.integers(0, 256, 2).tolist(), rng.integers(5, 70, 2).tolist()
            cv2.ellipse(canvas, centre, size, rng.uniform(0, 180), 0, 360, float(rng.uniform(0, 255)), cv2.FILLED)
        yield canvas + rng.normal(0, 4, (256, 256))
        yield sum(
            cv2.resize(rng.normal(0, 2.0**-n, (2**n, 2**n)), (256, 256), interpolation=cv2.INTER_CUBIC)
            for n in range(1, 8)
        )


def no_chest() -> Iterator[Radiograph]:
    """What is no chest radiograph: drawn, and other modalities."""
    yield from map(Radiograph, drawn())
    for name in MODALITIES:
        path = get_testdata_file(name, download=False)
        try:
            if path is not None:
                yield read_radiograph(path)
        except CxredgeError:
            continue


class Counts:
    """How often each flag was given, by what was done to the radiographs."""

    def __init__(self) -> None:
        self.images: Counter[str] = Counter()
        self.flags: Counter[tuple[str, str]] = Counter()

    def add(self, kind: str, segmenter: Segmenter, radiographs: Iterable[Radiograph]) -> None:
        """Segment radiographs and count their flags."""
        for result in segmenter.stream(radiographs, return_errors=True):
            if isinstance(result, CxredgeError):
                continue
            found = set(result.flags) & set(FLAGS)
            self.images[kind] += 1
            self.flags.update((kind, flag) for flag in found)
            self.flags[kind, "any"] += bool(found)

    def share(self, kind: str, flag: str) -> float:
        """Share of the radiographs of one kind that have a flag."""
        return self.flags[kind, flag] / self.images[kind]

    def quality(self, flag: str, untouched: list[str]) -> dict[str, float | int | None]:
        """Recall and precision of one flag over what it should find and all that is untouched."""
        kinds = EXPECTED[flag]
        hits, positives = sum(self.flags[kind, flag] for kind in kinds), sum(self.images[kind] for kind in kinds)
        alarms, negatives = (
            sum(self.flags[kind, flag] for kind in untouched),
            sum(self.images[kind] for kind in untouched),
        )
        precision = hits / (hits + alarms) if hits + alarms else None
        return {"positives": positives, "recall": hits / positives, "precision": precision, "false_alarms": alarms,
                "untouched": negatives}  # fmt: skip


def measure(segmenter: Segmenter, folders: list[Path]) -> tuple[Counts, list[str]]:
    """Count the flags of untouched, spoiled and other images; also gives the names of the untouched kinds."""
    counts, untouched = Counts(), []
    ways: dict[str, list[Callable[[], Radiograph]]] = {}
    for folder in folders:
        dataset = open_dataset(folder)
        radiographs = [case.radiograph() for case in dataset.split(*DEFAULT_SPLITS)]
        untouched.append(f"{dataset.name} test")
        counts.add(untouched[-1], segmenter, radiographs)
        for seed, radiograph in enumerate(radiographs):
            for way, pixels in spoiled(radiograph.pixels, seed):
                ways.setdefault(way, []).append(lambda pixels=pixels: Radiograph(pixels))
    for way, makers in ways.items():
        counts.add(way, segmenter, (make() for make in makers))
    counts.add(NO_CHEST, segmenter, no_chest())
    return counts, untouched


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("datasets", type=Path, nargs="+")
    parser.add_argument("--model", type=Path)
    parser.add_argument("--json", type=Path, dest="file")
    arguments = parser.parse_args()
    with Segmenter.load(arguments.model, threads=1) as segmenter:
        counts, untouched = measure(segmenter, arguments.datasets)
    kinds = Table("radiographs", "images", "any flag", "most often")
    for kind in counts.images:
        common = sorted(FLAGS, key=lambda flag: -counts.share(kind, flag))[:3]
        text = ", ".join(f"{flag} {counts.share(kind, flag):.0%}" for flag in common if counts.share(kind, flag))
        kinds.add_row(kind, str(counts.images[kind]), f"{counts.share(kind, 'any'):.1%}", text)
    flags = Table("flag", "should find", "recall", "precision", "false alarms")
    quality = {flag: counts.quality(flag, untouched) for flag in EXPECTED}
    for flag, row in quality.items():
        precision = "–" if row["precision"] is None else f"{row['precision']:.3f}"
        found = f"{row['positives']}: {', '.join(EXPECTED[flag])}"
        flags.add_row(flag, found, f"{row['recall']:.3f}", precision, f"{row['false_alarms']} of {row['untouched']}")
    console = Console(width=150)
    console.print(kinds, flags)
    if arguments.file:
        shares = {kind: {flag: counts.share(kind, flag) for flag in ("any", *FLAGS)} for kind in counts.images}
        arguments.file.write_text(json.dumps({"images": counts.images, "shares": shares, "flags": quality}, indent=2))


if __name__ == "__main__":
    main()
