"""How a model is calibrated: the choices of the command line and of whoever calls the package."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from cxredge.errors import CalibrationError

Method: TypeAlias = Literal["minmax", "entropy", "percentile"]
METHODS: tuple[Method, ...] = ("minmax", "entropy", "percentile")

Step: TypeAlias = Callable[[int, int], None]
"""Called with what is done of a stage, and what there is to do."""
Progress: TypeAlias = Callable[[str, int, int], None]
"""Called with the name of a stage, what is done of it, and what there is to do."""


def silent(*_: object) -> None:
    """A :data:`Progress` that tells nobody."""


LEAST_SAMPLES = 16
"""Fewer radiographs do not show what a network meets."""


@dataclass(frozen=True)
class Options:
    """How to calibrate.

    Attributes:
        method: of estimating ranges.
        count: radiographs to draw; a quarter of them is held back for the gate. Each gets a shifted copy.
        seed: of the draw.
        max_drop: what the gate allows: mean fall of Dice and of TPR, and mean 1 - Dice between both models' masks.
        least_quantised: share of the quantisable multiply-accumulates that must be in INT8, in [0, 1].
        ranges: table of ranges to use again or to write; ``None`` for one beside the output.
        report: folder of the report; ``None`` for files beside the output.
        threads: CPU threads of one inference; ``None`` for all cores.
    """

    method: Method = "percentile"
    count: int = 128
    seed: int = 1
    max_drop: float = 0.002
    least_quantised: float = 0.5
    ranges: Path | None = None
    report: Path | None = None
    threads: int | None = None

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise CalibrationError(f"unknown method {self.method!r}; there are {', '.join(METHODS)}")
        if self.count < LEAST_SAMPLES:
            raise CalibrationError(f"{self.count} samples are too few; draw at least {LEAST_SAMPLES}")
        if not (0 <= self.max_drop <= 1 and 0 <= self.least_quantised <= 1):
            raise CalibrationError("max_drop and least_quantised are shares between 0 and 1")

    def files(self, output: Path) -> tuple[Path, Path, Path]:
        """Table of ranges, report as JSON and report as PNG of a calibration that writes ``output``."""
        beside = (output.with_suffix(suffix) for suffix in (".ranges.json", ".calibration.json", ".calibration.png"))
        ranges, json_file, png_file = beside
        if self.report is not None:
            json_file, png_file = self.report / "calibration.json", self.report / "calibration.png"
        return self.ranges or ranges, json_file, png_file
