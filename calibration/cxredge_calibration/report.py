"""What a calibration found, for people and programs; also when the gate refuses it."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnxruntime

from cxredge.errors import MissingExtraError
from cxredge.runs.results import write_atomically
from cxredge_calibration.choice import Choice
from cxredge_calibration.gate import ImageFigures
from cxredge_calibration.layers import Layer
from cxredge_calibration.options import Options
from cxredge_calibration.ranges import RangeTable
from cxredge_calibration.search import Trial
from cxredge_calibration.sensitivity import Sensitivity

REMAINDER = "fp32"
"""Precision of what is not quantised, until the model is typed for a GPU."""
MOST_BLAMED = 3
OUTLIER = 8.0
"""A range whose peak is so many times the samples' median was set by a single sample."""


@dataclass(frozen=True)
class CalibrationReport:
    """A calibration from the samples to the verdict.

    Attributes:
        model: file that was calibrated.
        options: of the calibration.
        choice: of samples.
        table: ranges of the tensors.
        table_kept: whether they were there from an earlier run.
        layers: quantisable layers in the graph's order.
        sensitivities: of each layer, the most sensitive first.
        trials: of leaving layers in floating point; the last one decides.
    """

    model: Path
    options: Options
    choice: Choice
    table: RangeTable
    table_kept: bool
    layers: tuple[Layer, ...]
    sensitivities: tuple[Sensitivity, ...]
    trials: tuple[Trial, ...]

    @property
    def passed(self) -> bool:
        """Whether the gate lets the INT8 model through."""
        return self.verdict.passed

    @property
    def verdict(self) -> Trial:
        """The trial that decides: the last."""
        return self.trials[-1]

    @property
    def quantised(self) -> tuple[Layer, ...]:
        """Layers in INT8, in the graph's order."""
        return tuple(layer for layer in self.layers if layer not in self.verdict.left)

    @property
    def quantised_share(self) -> float:
        """Share of the quantisable layers' multiply-accumulates that is in INT8."""
        return sum(layer.macs for layer in self.quantised) / sum(layer.macs for layer in self.layers)

    def blamed_images(self) -> list[ImageFigures]:
        """Held-back images whose masks differ most in the last trial that measured all."""
        complete = [trial.figures for trial in self.trials if trial.figures.complete][-1]
        return sorted(complete.images, key=lambda image: image.agreement)[:MOST_BLAMED]

    def blamed_samples(self) -> dict[str, float]:
        """Samples that alone set a range, with the most that they exceed the median sample by."""
        blamed: dict[str, float] = {}
        for found in self.table.ranges.values():
            if found.peak_over_median >= OUTLIER:
                blamed[found.peak_input] = max(blamed.get(found.peak_input, 0.0), found.peak_over_median)
        return dict(sorted(blamed.items(), key=lambda item: -item[1]))

    def record(self) -> dict[str, Any]:
        """What the INT8 model's contract says of its calibration."""
        figures = self.verdict.figures
        return {
            "method": self.table.key.method,
            "model_sha256": self.table.key.model,
            "samples_sha256": self.table.key.samples,
            "preprocessing_sha256": self.table.key.preprocessing,
            "samples": self.choice.counts(),
            "seed": self.options.seed,
            "quantised": [layer.name for layer in self.quantised],
            "left": [layer.name for layer in self.verdict.left],
            "quantised_share_of_macs": round(self.quantised_share, 4),
            "gate": {
                "max_drop": self.options.max_drop,
                "images": len(figures.images),
                "drop": figures.drop,
                "disagreement": figures.disagreement,
                "dice_drop": figures.dice_drop,
                "tpr_drop": figures.tpr_drop,
            },
            "remainder": REMAINDER,
            "onnxruntime": onnxruntime.__version__,
        }

    def to_dict(self) -> dict[str, Any]:
        """Everything, as a JSON object."""
        return {
            "model": self.model.name,
            "passed": self.passed,
            **self.record(),
            "set_aside": list(self.choice.set_aside),
            "ranges_kept": self.table_kept,
            "ranges": {name: asdict(found) for name, found in self.table.ranges.items()},
            "blamed_samples": self.blamed_samples(),
            "blamed_images": [image.name for image in self.blamed_images()],
            "sensitivity": [sensitivity_dict(one) for one in self.sensitivities],
            "trials": [trial_dict(trial) for trial in self.trials],
        }

    def refusal(self) -> str:
        """Why the gate refuses, and which layers and images are to blame."""
        figures = self.verdict.figures
        worst = ", ".join(f"{one.layer.name} ({one.disagreement:.4f})" for one in self.sensitivities[:MOST_BLAMED])
        images = ", ".join(f"{image.name} ({image.agreement:.4f})" for image in self.blamed_images())
        samples = ", ".join(f"{name} ({ratio:.0f} times the median)" for name, ratio in self.blamed_samples().items())
        loss = f"{'' if figures.complete else 'at least '}{figures.drop:.4f}"
        return (
            f"INT8 loses {loss} Dice against FP32 on the held-back samples (allowed: {self.options.max_drop:g}), with "
            f"{len(self.verdict.left)} of {len(self.layers)} layers in floating point, and the gate gives up no more; "
            f"most sensitive layers: {worst}; worst images (Dice between the masks): {images}"
            + (f"; samples that stretch the ranges: {samples}" if samples else "")
        )


def sensitivity_dict(one: Sensitivity) -> dict[str, Any]:
    """A layer's sensitivity as a JSON object; no noise at all is ``null`` decibels."""
    return {
        "layer": one.layer.name,
        "node": one.layer.node,
        "macs": one.layer.macs,
        "sqnr_db": one.sqnr_db if math.isfinite(one.sqnr_db) else None,
        "disagreement": one.disagreement,
        "dice_drop": one.dice_drop,
        "tpr_drop": one.tpr_drop,
    }


def trial_dict(trial: Trial) -> dict[str, Any]:
    """A trial as a JSON object."""
    return {
        "left": [layer.name for layer in trial.left],
        "passed": trial.passed,
        "complete": trial.figures.complete,
        **trial.figures.to_dict(),
    }


def require_drawing() -> None:
    """Raise :class:`MissingExtraError` where matplotlib is missing, before minutes are spent."""
    if find_spec("matplotlib") is None:
        raise MissingExtraError("drawing the report of a calibration", "calibration")


def write_report(report: CalibrationReport, json_file: Path, png_file: Path) -> None:
    """Write a report as JSON and as a picture (needs matplotlib).

    Raises:
        OutputError: a file cannot be written.
    """
    from cxredge_calibration.figure import draw_report

    write_atomically(json_file, (json.dumps(report.to_dict(), indent=2) + "\n").encode())
    draw_report(report, png_file)
