"""Picture of a benchmark: where the time of one radiograph goes, by contestant and batch size. Needs matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from cxredge.benchmark.measure import DEVICE_STAGES, STAGES, Measurement
from cxredge.benchmark.report import Row
from cxredge.evaluation.figures import DOTS_PER_INCH, write_figure

COLOURS = {
    "decode": "#77aadd",
    "preprocess": "#99ddff",
    "host_to_device": "#44bb99",
    "compute": "#ee8866",
    "device_to_host": "#bbcc33",
    "postprocess": "#eedd88",
    "write": "#ffaabb",
}


def draw(measurement: Measurement, rows: Sequence[Row], file: Path) -> None:
    """Draw a benchmark and write it as PNG.

    Raises:
        OutputError: the file cannot be written.
    """
    write_figure(draw_stages(measurement, rows), file)


def draw_stages(measurement: Measurement, rows: Sequence[Row]) -> Figure:
    """A bar a row: the median milliseconds of each stage for one radiograph, one after another; floors as marks."""
    figure = Figure((10, 1.6 + 0.5 * len(rows)), DOTS_PER_INCH, layout="constrained")
    axes = figure.subplots()
    for place, row in enumerate(rows):
        start = 0.0
        for stage, milliseconds in stage_medians(measurement, row).items():
            label = stage.replace("_", " ") if place == 0 or stage in DEVICE_STAGES else None
            axes.barh(place, milliseconds, left=start, color=COLOURS[stage], label=label)
            if stage == "compute" and row.floor is not None:
                floor = start + row.floor.milliseconds / row.series.batch
                axes.plot([floor, floor], [place - 0.4, place + 0.4], color="black", label="roofline floor")
            start += milliseconds
        axes.text(start, place, f" {row.series.images_per_second:.3g} images/s inference", va="center", fontsize=8)
    axes.set_yticks(
        range(len(rows)),
        [f"{row.series.contestant} ({row.precision}), batch {row.series.batch}" for row in rows],
        parse_math=False,
    )
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.set_xlabel("ms a radiograph, medians, one stage after another")
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique.keys(), loc="outside upper center", ncols=4, frameon=False)
    return figure


def stage_medians(measurement: Measurement, row: Row) -> dict[str, float]:
    """Median milliseconds of one radiograph by stage, in order; a stage that is not known is left out."""
    device = {stage: np.divide(values, row.series.batch) for stage, values in row.series.stages.items()}
    times = {**measurement.host, **device}
    return {stage: float(np.median(times[stage])) for stage in STAGES if stage in times}
