"""``cxredge calibrate``: from a model and radiographs to an INT8 model that still segments."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cxredge.errors import MissingExtraError

if TYPE_CHECKING:
    from rich.progress import TaskID

    from cxredge_calibration.options import Method, Progress
    from cxredge_calibration.report import CalibrationReport

METHODS: tuple[Method, ...] = ("minmax", "entropy", "percentile")
SHARE = click.FloatRange(0, 1)


@click.command("calibrate", short_help="Quantise a model to INT8.")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("samples", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Model file to write.")
@click.option(
    "--method", type=click.Choice(METHODS), default="percentile", show_default=True, help="How ranges are estimated."
)
@click.option(
    "--count", default=128, show_default=True, type=click.IntRange(16), help="Radiographs to draw from SAMPLES."
)
@click.option("--seed", default=1, show_default=True, help="Of the draw.")
@click.option(
    "--max-drop", default=0.002, show_default=True, type=SHARE, help="What Dice (and TPR) may lose against FP32."
)
@click.option(
    "--least-quantised",
    default=0.5,
    show_default=True,
    type=SHARE,
    help="Share of the big convolutions' work that must be in INT8.",
)
@click.option(
    "--ranges", type=click.Path(path_type=Path), help="Table of ranges to use again or write. [default: beside OUTPUT]"
)
@click.option("--report", type=click.Path(path_type=Path), help="Folder of the report. [default: files beside OUTPUT]")
@click.option("--threads", type=click.IntRange(1), help="CPU threads. [default: all cores]")
def command(
    model: Path,
    samples: tuple[Path, ...],
    output: Path,
    method: Method,
    count: int,
    seed: int,
    max_drop: float,
    least_quantised: float,
    ranges: Path | None,
    report: Path | None,
    threads: int | None,
) -> None:
    """Quantise MODEL ("bundled" for the bundled one) to INT8 with ranges from SAMPLES.

    SAMPLES are data sets, of which only training rows are used, and folders or files of chest
    radiographs. A quarter is held back: on it the INT8 model's masks are compared with the FP32 model's
    and with labels. The most sensitive layers stay in floating point until nothing is lost; where that
    does not help the model is not written, and the report says why.
    """
    try:
        from cxredge_calibration.calibrate import calibrate_model
        from cxredge_calibration.options import Options
    except ModuleNotFoundError as error:
        raise MissingExtraError("calibrating", "calibration") from error
    from cxredge.bundle import bundled_model

    options = Options(method, count, seed, max_drop, least_quantised, ranges, report, threads)
    chosen = bundled_model() if str(model) == "bundled" else model
    with shown_progress() as progress:
        found = calibrate_model(chosen, samples, output, options=options, progress=progress)
    print_layers(found)
    print_verdict(found, output)


@contextmanager
def shown_progress() -> Iterator[Progress]:
    """Progress of the stages as bars; elsewhere than on a terminal only as they were at the end."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn
    from rich.progress import Progress as Bars

    console = Console(stderr=True, highlight=False)
    bars: dict[str, TaskID] = {}
    with Bars(TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), console=console) as shown:

        def progress(stage: str, done: int, total: int) -> None:
            if stage not in bars:
                bars[stage] = shown.add_task(f"{stage:11}", total=total)
            shown.update(bars[stage], completed=done, total=total)

        yield progress


def print_layers(report: CalibrationReport) -> None:
    """Print the layers, the most sensitive first: range, signal to noise and effect of each alone in INT8."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="layers, each alone in INT8, the most sensitive first", title_justify="left")
    table.add_column("layer", no_wrap=True)
    for title in ("MMAC", "range of its input", "SQNR dB", "1 - Dice", "Dice drop"):
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("kept in")
    for one in report.sensitivities:
        found = report.table.ranges[one.layer.source]
        table.add_row(
            escape(one.layer.name),
            f"{one.layer.macs / 1e6:.0f}",
            f"{found.low:.2f} to {found.high:.2f}",
            f"{one.sqnr_db:.1f}",
            f"{one.disagreement:.5f}",
            "–" if one.dice_drop is None else f"{one.dice_drop:+.5f}",
            "FP32" if one.layer in report.verdict.left else "INT8",
        )
    console = Console()
    Console(width=max(console.width, 110)).print(table)


def print_verdict(report: CalibrationReport, output: Path) -> None:
    """Print what was written, and the gate's figures."""
    figures = report.verdict.figures
    parts = (
        ("1 - Dice between the masks", figures.disagreement),
        ("Dice drop against labels", figures.dice_drop),
        ("TPR drop", figures.tpr_drop),
    )
    measured = ", ".join(f"{title} {value:.5f}" for title, value in parts if value is not None)
    again = " (ranges of an earlier run)" if report.table_kept else ""
    click.echo(
        f"{output}: {len(report.quantised)} of {len(report.layers)} big convolutions in INT8 "
        f"({report.quantised_share:.0%} of their work){again}; {len(figures.images)} held-back images: {measured} "
        f"(allowed: {report.options.max_drop:g})"
    )
    if report.choice.set_aside:
        click.echo(f"set aside, because no two lungs were found: {', '.join(report.choice.set_aside)}")
