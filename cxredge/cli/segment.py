"""``cxredge segment``: radiographs in, masks, overlays and ``results.jsonl`` out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cxredge.backends import BACKENDS
from cxredge.cli import NOTHING_DONE, SOME_FAILED
from cxredge.errors import CxredgeError, InputError, OutputError

if TYPE_CHECKING:
    from cxredge.backends import BackendName
    from cxredge.results import ResultsFile, Target
    from cxredge.segmenter import Inferred, Prepared, Segmenter

STATUS_COLOURS = {"ok": "green", "warning": "yellow", "failed": "red"}


@click.command("segment", short_help="Segment the lungs in radiographs.")
@click.argument("inputs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder for the results.")
@click.option(
    "--model", type=click.Path(path_type=Path), help="Model file, or engine (.plan). [default: the bundled model]"
)
@click.option("--backend", type=click.Choice(BACKENDS), default="auto", show_default=True, help="What runs the model.")
@click.option(
    "--batch-size", type=click.IntRange(1), default=1, show_default=True, help="Radiographs in one inference."
)
@click.option("--workers", type=click.IntRange(1), help="Threads that read and write. [default: one a core]")
@click.option("--no-build", is_flag=True, help="With --backend tensorrt: never build an engine, use what there is.")
@click.option("--no-overlay", is_flag=True, help="Write no pictures with contours.")
@click.option("--overwrite", is_flag=True, help="Replace results that exist.")
@click.pass_context
def command(
    ctx: click.Context,
    inputs: tuple[Path, ...],
    output: Path,
    model: Path | None,
    backend: BackendName,
    batch_size: int,
    workers: int | None,
    no_build: bool,
    no_overlay: bool,
    overwrite: bool,
) -> None:
    """Segment the lungs in INPUTS: files (DICOM, PNG, JPEG, TIFF, NPY) and folders.

    For each input NAME writes NAME.mask.png (0 and 255, the input's size) and NAME.overlay.png (the
    contour on the radiograph) into the output folder, which keeps the structure of input folders, and
    one line of results.jsonl.
    """
    from cxredge.discovery import find_radiographs
    from cxredge.results import ResultsFile, clear_existing, refuse_existing
    from cxredge.segmenter import Segmenter

    found = find_radiographs(inputs, output)
    if not found.targets:
        raise InputError(f"no radiographs among the inputs ({found.skipped} other files)")
    if not overwrite:
        refuse_existing(output, found.targets)
    statuses: Counter[str] = Counter()
    started = time.monotonic()
    with (
        Segmenter.load(model, backend=backend, threads=1, build=not no_build) as segmenter,
        ResultsFile(output, overwrite=overwrite) as file,
    ):
        lines = segment_targets(
            segmenter, found.targets, output, overlay=not no_overlay, batch_size=batch_size, workers=workers
        )
        if overwrite:
            clear_existing(output, found.targets)
        for line in shown(recorded(lines, file), len(found.targets)):
            statuses[line["status"]] += 1
    print_summary(statuses, found.skipped, time.monotonic() - started, output)
    if statuses["failed"]:
        ctx.exit(NOTHING_DONE if statuses.total() == statuses["failed"] else SOME_FAILED)


def segment_targets(
    segmenter: Segmenter,
    targets: tuple[Target, ...],
    output: Path,
    *,
    overlay: bool,
    batch_size: int,
    workers: int | None,
) -> Iterator[dict[str, Any]]:
    """Segment ``targets`` and write their pictures; yields the lines of ``results.jsonl`` in order.

    Raises:
        OutputError: a result cannot be written; the run stops there.
    """
    from cxredge.results import record, write_pictures

    def prepare(target: Target) -> Prepared:
        try:
            return segmenter.prepare(target.source)
        except MemoryError as error:
            raise InputError("is too large for this machine's memory") from error

    def finish(target: Target, prepared: Prepared, inferred: Inferred) -> dict[str, Any]:
        try:
            segmentation = segmenter.finish(prepared, inferred)
            started = time.perf_counter()
            outputs = write_pictures(output, target, segmentation, overlay=overlay)
            return record(target, segmentation, 1e3 * (time.perf_counter() - started), outputs)
        except MemoryError as error:
            raise InputError("is too large for this machine's memory") from error

    outcomes = segmenter.process(targets, prepare, finish, batch_size=batch_size, workers=workers)
    for target, outcome in zip(targets, outcomes, strict=True):
        if isinstance(outcome, OutputError):
            raise outcome
        yield record(target, outcome) if isinstance(outcome, CxredgeError) else outcome


def recorded(lines: Iterator[dict[str, Any]], file: ResultsFile) -> Iterator[dict[str, Any]]:
    """Write each of ``lines`` to ``results.jsonl`` before it is passed on, so that what is shown is also kept."""
    for line in lines:
        file.write(line)
        yield line


def shown(lines: Iterator[dict[str, Any]], total: int) -> Iterator[dict[str, Any]]:
    """Pass ``lines`` on, showing a progress bar on a terminal and a line an input elsewhere; failures always."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        for line in lines:
            click.echo(describe(line), err=True)
            yield line
        return
    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"), TimeRemainingColumn())
    started = time.monotonic()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("segment", total=total, speed="")
        for done, line in enumerate(lines, 1):
            if line["status"] != "ok":
                progress.console.print(describe(line), style=STATUS_COLOURS[line["status"]], markup=False)
            progress.update(task, advance=1, speed=f"{done / (time.monotonic() - started):.1f} images/s")
            yield line


def describe(line: dict[str, Any]) -> str:
    """One line of text for one line of ``results.jsonl``."""
    if line["status"] == "failed":
        return f"failed   {line['input']}: {line['error']}"
    spent = sum(line["milliseconds"].values())
    text = f"{line['status']:8} {line['input']}: lungs {line['lung_area_fraction']:.1%} of the image, {spent:.0f} ms"
    return f"{text} [{', '.join(line['flags'])}]" if line["flags"] else text


def print_summary(statuses: Counter[str], skipped: int, seconds: float, output: Path) -> None:
    """Print the table at the end of a run."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(f"Results in {output}"), title_justify="left")
    for column in (*STATUS_COLOURS, "skipped", "seconds", "images/s"):
        table.add_column(column, justify="right")
    counts = [str(statuses[status]) for status in STATUS_COLOURS]
    table.add_row(*counts, str(skipped), f"{seconds:.1f}", f"{statuses.total() / max(seconds, 1e-9):.1f}")
    Console().print(table)
