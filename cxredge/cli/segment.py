"""``cxredge segment``: radiographs in; masks, overlays, ``results.jsonl`` and ``results.csv`` out."""

from __future__ import annotations

import logging
import os
import time
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from cxredge.cli import NOTHING_DONE, SOME_FAILED, STOPPED
from cxredge.cli.cluster import ClusterSession, finish_on_cluster, open_cluster_session, parse_address
from cxredge.cli.display import Line, print_summary, shown
from cxredge.cli.run_options import RunOptions, Session, open_session, options_from, run_options
from cxredge.errors import ClusterError, InputError, OutputError, printable
from cxredge.logs import log_event

if TYPE_CHECKING:
    from cxredge.runs.discovery import Source
    from cxredge.runs.results import ResultsFile, Target
    from cxredge.runs.run import Plan

    Opened: TypeAlias = Session | ClusterSession


def parse_inputs(_ctx: click.Context, _param: click.Parameter, value: tuple[str, ...]) -> tuple[Source, ...]:
    """Inputs: those with a scheme stay URLs, the others are paths."""
    from cxredge.runs.remote import is_url

    return tuple(text if is_url(text) else Path(text) for text in value)


@click.command("segment", short_help="Segment the lungs in radiographs.")
@click.argument("inputs", nargs=-1, required=True, callback=parse_inputs)
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder for the results.")
@run_options(timeout=None)
@click.option("--overwrite", is_flag=True, help="Replace results that exist.")
@click.option("--resume", is_flag=True, help="Go on with a run that was stopped or killed; the rest is done.")
@click.option(
    "--ray",
    "address",
    is_flag=False,
    flag_value="local",
    callback=parse_address,
    metavar="[ADDRESS]",
    help="Run on a Ray cluster (auto, HOST:PORT), or on Ray started here. Nodes share OUTPUT and local INPUTS.",
)
@click.option("--report", type=click.Path(path_type=Path, dir_okay=False), help="Write a page (HTML) with the results.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    inputs: tuple[Source, ...],
    output: Path,
    overwrite: bool,
    resume: bool,
    address: str | None,
    report: Path | None,
    **others: Any,
) -> None:
    """Segment the lungs in INPUTS: files (DICOM, PNG, JPEG, TIFF, NPY) and folders.

    INPUTS may be URLs (s3://BUCKET/PREFIX) and Parquet files with a column 'path' too (extra 'ray').

    For each input NAME writes NAME.mask.png (0 and 255, the input's size) and NAME.overlay.png (the
    contour on the radiograph) into the output folder, which keeps the structure of input folders, and
    one line of results.jsonl; results.csv is the same as a table, made at the end. With --format it
    writes, or writes as well: NAME.seg.dcm and NAME.sc.dcm (DICOM segmentation and secondary capture, of
    DICOM inputs), NAME.contour.json (outlines), NAME.mask.npy.
    """
    from cxredge.runs.discovery import find_radiographs
    from cxredge.runs.journal import journal_of
    from cxredge.runs.results import refuse_existing

    if overwrite and resume:
        raise click.UsageError("--overwrite begins anew and --resume goes on: pass one of them")
    found = find_radiographs(inputs, output)
    if found.outside:
        click.echo(
            f"cxredge: {len(found.outside)} links that lead out of their folders are passed over, the first is "
            f"{printable(str(found.outside[0]))}; name the files that they lead to",
            err=True,
        )
    if not found.targets:
        raise InputError(f"no radiographs among the inputs ({found.skipped} other files)")
    resume = resume and journal_of(output).exists()
    if not overwrite and not resume:
        refuse_existing(output, found.targets)
    options = options_from(others)
    started = time.monotonic()
    opened = (
        open_session("segment", inputs, output, options, resume=resume)
        if address is None
        else open_cluster_session(address, inputs, output, options, resume=resume)
    )
    with opened as session:
        plan = prepare_output(session, found.targets, overwrite=overwrite, resume=resume)
        statuses = run(ctx, session, plan, inputs)
        if report:
            from cxredge.runs.report import write_report

            write_report(report, output)
        seconds = time.monotonic() - started
        log_event("run_ended", seconds=round(seconds, 1), **statuses)
    print_summary(statuses, found.skipped, len(plan.targets) - len(plan.kept), seconds, output)
    if statuses["failed"]:
        ctx.exit(NOTHING_DONE if statuses.total() == statuses["failed"] else SOME_FAILED)


def prepare_output(session: Opened, targets: tuple[Target, ...], *, overwrite: bool, resume: bool) -> Plan:
    """Make the output folder ready: find out what is done, remove what is not whole or will be made again."""
    from cxredge.pipeline import available_cores
    from cxredge.runs.results import clear_existing, remove_file, remove_parts
    from cxredge.runs.run import make_plan
    from cxredge.runs.table import PARQUET, TABLE

    output = session.journal.folder
    if overwrite or resume:
        remove_parts(output)
    for name in (TABLE, PARQUET):
        remove_file(output / name)
    plan = make_plan(targets, session.journal, session.options.workers or available_cores())
    if overwrite:
        clear_existing(output, targets)
    announce(plan, session)
    return plan


def announce(plan: Plan, session: Opened) -> None:
    """Say what will be done."""
    kept, total = len(plan.kept), len(plan.targets)
    log_event("run_started", images=total, kept=kept, model=session.model, backend=session.backend)
    if kept and not session.options.logs:
        click.echo(f"resume   {kept} of {total} are done already", err=True)


def run(ctx: click.Context, session: Opened, plan: Plan, inputs: tuple[Source, ...]) -> Counter[str]:
    """Do what the plan says and write ``results.jsonl`` and ``results.csv``; gives the number of results by status.

    Where the run has to stop it says why and what is done, and ends the command.
    """
    from cxredge.runs.interruption import Interrupted
    from cxredge.runs.results import ResultsFile
    from cxredge.runs.run import leading_lines
    from cxredge.runs.table import write_table

    statuses: Counter[str] = Counter()
    try:
        kept = counted(leading_lines(plan, session.journal), statuses)
        with (
            ResultsFile(session.journal.folder, overwrite=True, kept=kept) as file,
            closing(new_lines(session, plan, file, inputs, statuses)) as lines,
        ):
            for _ in shown(lines, len(plan.targets) - len(plan.kept), logs=session.options.logs):
                pass
        write_table(session.journal.folder)
        if isinstance(session, ClusterSession):
            finish_on_cluster(session.journal.folder, session.options)
    except (OutputError, InputError, ClusterError, Interrupted) as error:
        stop(ctx, session.options, error, len(plan.kept) + session.journal.appended, len(plan.targets))
    return statuses


def new_lines(
    session: Opened, plan: Plan, file: ResultsFile, inputs: tuple[Source, ...], statuses: Counter[str]
) -> Generator[Line, None, None]:
    """Do what is to do; write each line of ``results.jsonl``, count it, and pass on the new ones."""
    from cxredge.runs.run import results_in_order, while_folders_last

    folders = [path for path in inputs if isinstance(path, Path) and os.path.isdir(path)]  # noqa: PTH112 (never raises)
    with closing(while_folders_last(session.entries(plan.to_do), folders)) as entries:
        for record, is_new in results_in_order(plan, session.journal, entries):
            file.write(record)
            statuses[record["status"]] += 1
            if is_new:
                yield file.lines, record


def counted(records: Iterator[dict[str, Any]], statuses: Counter[str]) -> Iterator[dict[str, Any]]:
    """Pass ``records`` on and count their statuses."""
    for record in records:
        statuses[record["status"]] += 1
        yield record


def stop(ctx: click.Context, options: RunOptions, error: BaseException, done: int, total: int) -> None:
    """Say why the run stops and what is done, and end the command."""
    cause = getattr(error.__cause__, "strerror", None) or type(error).__name__
    log_event("run_stopped", logging.ERROR, done=done, images=total, cause=cause)
    if not options.logs:
        click.echo(f"cxredge: stopped: {str(error) or 'interrupted'}", err=True)
        click.echo(f"cxredge: {done} of {total} are done; the same command with --resume does the rest", err=True)
    ctx.exit(STOPPED)
