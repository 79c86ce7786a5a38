"""What a benchmark found: tables for a person, JSON for a program."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cxredge import __version__
from cxredge.benchmark.measure import DEVICE_STAGES, STAGES, Measurement, Series, percentiles
from cxredge.benchmark.roofline import Floor
from cxredge.pipeline import available_cores

MEGA = 1e6
NONE = "–"
TABLE_WIDTH = 170


@dataclass(frozen=True)
class Row:
    """A series and what else is known about it.

    Attributes:
        series: the times.
        ratio: median ratio of its times to the first contestant's.
        model: name of the model.
        precision: of the model, as its contract says.
        flipped_pixels: mask pixels at network size that differ from the first contestant's, over all radiographs.
        memory: peak of ``host`` and use of ``device`` in bytes; ``None`` where not known.
        floor: the roofline's, where it is known.
    """

    series: Series
    ratio: float
    model: str
    precision: str
    flipped_pixels: int
    memory: dict[str, int | None]
    floor: Floor | None

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object; times in milliseconds of a whole run."""
        total = percentiles(self.series.total)
        return {
            "contestant": self.series.contestant,
            "model": self.model,
            "precision": self.precision,
            "batch": self.series.batch,
            "milliseconds": total,
            "stages": {stage: percentiles(values) for stage, values in self.series.stages.items()},
            "images_per_second": self.series.images_per_second,
            "ratio": self.ratio,
            "flipped_pixels": self.flipped_pixels,
            "memory_bytes": self.memory,
            "floor_milliseconds": self.floor and self.floor.milliseconds,
            "floor_device": self.floor and self.floor.roof.to_dict(),
        }


def content(measurement: Measurement, rows: Sequence[Row], radiographs: int) -> dict[str, Any]:
    """The whole benchmark as a JSON object."""
    return {
        "cxredge": __version__,
        "machine": {"platform": platform.platform(), "processor": platform.machine(), "cores": available_cores()},
        "radiographs": radiographs,
        "repeats": len(rows[0].series.total),
        "host_milliseconds": {stage: percentiles(values) for stage, values in measurement.host.items()},
        "results": [row.to_dict() for row in rows],
    }


def print_host(measurement: Measurement) -> None:
    """Print the stages on the host, which are the same for every backend."""
    table = Table(title="host, ms a radiograph, one thread", title_justify="left")
    table.add_column("stage")
    for title in ("p50", "p90", "p99"):
        table.add_column(title, justify="right")
    for stage in STAGES:
        if stage in measurement.host:
            table.add_row(stage, *(f"{value:.2f}" for value in percentiles(measurement.host[stage]).values()))
    Console().print(table)


def print_rows(rows: Sequence[Row]) -> None:
    """Print inference of every contestant at every batch size."""
    table = Table(title="inference, ms a batch", title_justify="left")
    table.add_column("contestant", no_wrap=True)
    titles = ("batch", "to device", "compute", "from device", "p50", "p90", "p99", "images/s", "ratio", "flipped")
    for title in (*titles, "host MB", "device MB", "floor"):
        table.add_column(title, justify="right")
    for row in rows:
        table.add_row(*(escape(cell) for cell in cells(row)))
    console = Console()
    Console(width=max(console.width, TABLE_WIDTH)).print(table)
    for roof in dict.fromkeys(row.floor.roof.text() for row in rows if row.floor is not None):
        console.print(roof, highlight=False, markup=False)


def cells(row: Row) -> list[str]:
    """One line of the table; what is not known is a dash."""
    stages = [row.series.stages.get(stage) for stage in DEVICE_STAGES]
    floor = row.floor and f"{row.floor.milliseconds:.3g}"
    return [
        f"{row.series.contestant} ({row.precision})",
        str(row.series.batch),
        *(NONE if times is None else f"{percentiles(times)['p50']:.4g}" for times in stages),
        *(f"{value:.4g}" for value in percentiles(row.series.total).values()),
        f"{row.series.images_per_second:.4g}",
        f"{row.ratio:.3f}",
        str(row.flipped_pixels),
        *(NONE if size is None else f"{size / MEGA:.0f}" for size in (row.memory["host"], row.memory["device"])),
        floor or NONE,
    ]
