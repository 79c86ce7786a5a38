"""The samples of a calibration: read, drawn, and checked to be chest radiographs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from cxredge.errors import CalibrationError
from cxredge_calibration.disturbance import disturbed
from cxredge_calibration.drawing import draw_pool, draw_samples
from cxredge_calibration.options import LEAST_SAMPLES, Step
from cxredge_calibration.plausibility import require_chest_radiographs, shows_two_lungs
from cxredge_calibration.samples import Sample, find_sources, read_samples
from cxredge_calibration.simulation import run


@dataclass(frozen=True)
class Choice:
    """The samples of a calibration.

    Attributes:
        calibration: samples whose ranges count.
        held_back: samples of other patients, for the gate.
        set_aside: names of drawn samples in which the FP32 model finds no two lungs; they serve for neither.
    """

    calibration: tuple[Sample, ...]
    held_back: tuple[Sample, ...]
    set_aside: tuple[str, ...]

    def counts(self) -> dict[str, dict[str, int]]:
        """Samples by data set and by what they serve for."""
        parts = {"calibration": self.calibration, "held_back": self.held_back}
        by_part = {part: Counter(sample.source.dataset for sample in some) for part, some in parts.items()}
        names = sorted({name for counter in by_part.values() for name in counter})
        return {name: {part: counter[name] for part, counter in by_part.items()} for name in names}


def choose_samples(
    paths: Sequence[Path],
    session: onnxruntime.InferenceSession,
    size: int,
    count: int,
    seed: int,
    step: Step,
) -> Choice:
    """Read and draw samples, and check them with the FP32 model.

    Args:
        paths: data set folders, folders of radiographs, and files.
        session: of the FP32 model.
        size: side of its input in pixels.
        count: samples to draw.
        seed: of the draw.
        step: called after each radiograph that was read.

    Raises:
        DatasetError: a data set is inconsistent, has no training rows, or has a file that cannot be read.
        CalibrationError: too few samples, too many that are no chest radiographs, or a test image.
    """
    pool = draw_pool(find_sources(paths), count, seed)
    samples = []
    for sample in read_samples(pool, size):
        samples.append(sample)
        step(len(samples), len(pool))
    drawn = draw_samples(samples, count, seed)
    every = (*drawn.calibration, *drawn.held_back)
    require_enough(len(every), "different radiographs")
    plausible = {sample.name: shows_two_lungs(run(session, sample.input)[0][0, 0]) for sample in every}
    require_chest_radiographs(list(plausible), list(plausible.values()))
    require_enough(sum(plausible.values()), "radiographs with two lungs")
    calibration, held_back = (
        tuple(sample for sample in part if plausible[sample.name]) for part in (drawn.calibration, drawn.held_back)
    )
    return Choice(calibration, held_back, tuple(name for name, fine in plausible.items() if not fine))


def require_enough(found: int, what: str) -> None:
    """Raise :class:`CalibrationError` where there are too few samples."""
    if found < LEAST_SAMPLES:
        raise CalibrationError(
            f"there are only {found} {what}, calibration needs at least {LEAST_SAMPLES}; name more samples"
        )


def with_shifted_copies(samples: Sequence[Sample]) -> tuple[tuple[str, ...], tuple[NDArray[np.float32], ...]]:
    """Names and network inputs ``(S, S)`` of ``samples``, each followed by its shifted copy."""
    pairs = [(sample.name, sample.input) for sample in samples]
    both = [each for name, pixels in pairs for each in ((name, pixels), (f"{name}, shifted", disturbed(pixels, name)))]
    return tuple(name for name, _ in both), tuple(pixels for _, pixels in both)
