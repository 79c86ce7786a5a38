"""A picture of a calibration: ranges, sensitivity of the layers, and Dice of the held-back images.

Needs matplotlib (extra ``calibration``).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from cxredge.evaluation.figures import DOTS_PER_INCH, write_figure
from cxredge_calibration.report import CalibrationReport

INT8, FLOATING, LIMIT = "#77aadd", "#ee8866", "#bb3333"
INCHES_A_LAYER = 0.22


def draw_report(report: CalibrationReport, file: Path) -> Path:
    """Draw a report as PNG; returns ``file``.

    Raises:
        OutputError: it cannot be written.
    """
    figure = Figure((17, 2.5 + INCHES_A_LAYER * len(report.layers)), DOTS_PER_INCH, layout="constrained")
    ranges, noise, effect, images = figure.subplots(1, 4, width_ratios=(1.2, 1, 1, 1.2))
    draw_ranges(ranges, report)
    draw_noise(noise, report)
    draw_effect(effect, report)
    draw_images(images, report)
    verdict = "passed" if report.passed else "refused"
    figure.suptitle(
        f"{report.model.name}, {report.options.method}: {verdict}, {len(report.quantised)} of {len(report.layers)} "
        f"layers in INT8 (the others orange)",
        parse_math=False,
    )
    return write_figure(figure, file)


def name_layers(axes: Axes, report: CalibrationReport, labelled: bool) -> list[str]:
    """Put the layers on the vertical axis from the top down; returns their colours."""
    names = [layer.name if labelled else "" for layer in report.layers]
    axes.set_yticks(range(len(names)), names, fontsize="x-small", parse_math=False)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.spines[["top", "right"]].set_visible(False)
    return [FLOATING if layer in report.verdict.left else INT8 for layer in report.layers]


def draw_ranges(axes: Axes, report: CalibrationReport) -> None:
    """The range of what each layer reads, and the largest magnitude that occurred."""
    colours = name_layers(axes, report, labelled=True)
    found = [report.table.ranges[layer.source] for layer in report.layers]
    lows, highs = np.array([each.low for each in found]), np.array([each.high for each in found])
    axes.barh(range(len(found)), highs - lows, left=lows, color=colours)
    axes.plot([each.peak for each in found], range(len(found)), "k|", label="largest magnitude")
    axes.set_title("range of the input")
    axes.legend(frameon=False, fontsize="x-small")


def draw_noise(axes: Axes, report: CalibrationReport) -> None:
    """Signal to quantisation noise of each layer's output."""
    colours = name_layers(axes, report, labelled=False)
    decibels = {one.layer: one.sqnr_db for one in report.sensitivities}
    values = np.array([decibels[layer] for layer in report.layers])
    axes.barh(range(len(values)), np.where(np.isfinite(values), values, 0), color=colours)
    axes.set_title("signal to noise alone in INT8 (dB)")


def draw_effect(axes: Axes, report: CalibrationReport) -> None:
    """What each layer alone does to the masks."""
    colours = name_layers(axes, report, labelled=False)
    apart = {one.layer: one.disagreement for one in report.sensitivities}
    axes.barh(range(len(apart)), [apart[layer] for layer in report.layers], color=colours)
    axes.set_title("1 - Dice against FP32 alone in INT8")


def draw_images(axes: Axes, report: CalibrationReport) -> None:
    """Dice of each held-back image between the masks and, where its lungs are labelled, of both models."""
    images = sorted(report.verdict.figures.images, key=lambda image: image.agreement)
    axes.plot([image.agreement for image in images], ".-", color=INT8, label="INT8 against FP32")
    labelled = [(place, image) for place, image in enumerate(images) if image.dice_fp32 is not None]
    for title, mark, values in (
        ("FP32 against truth", "k+", [image.dice_fp32 for _, image in labelled]),
        ("INT8 against truth", "rx", [image.dice_int8 for _, image in labelled]),
    ):
        axes.plot([place for place, _ in labelled], np.array(values, float), mark, markersize=4, label=title)
    axes.axhline(1 - report.options.max_drop, color=LIMIT, linewidth=0.8, label="limit of the mean")
    axes.set_title("Dice of the held-back images, worst first")
    axes.legend(frameon=False, fontsize="x-small")
    axes.spines[["top", "right"]].set_visible(False)
