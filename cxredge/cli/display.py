"""What a person sees of a run: a bar on a terminal, lines elsewhere, a table at the end; or the logs instead."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import click

from cxredge.errors import printable
from cxredge.logs import log_event, log_image

Line: TypeAlias = "tuple[int, dict[str, Any]]"
"""A line of ``results.jsonl``: its number, from 1, and what it says."""

STATUS_COLOURS = {"ok": "green", "warning": "yellow", "failed": "red"}
SECONDS_BETWEEN_REPORTS = 60.0
"""Between two accounts of the progress of a run, where no bar shows it."""


class Pace:
    """How fast a run goes and how long it will still take, by all that it has done.

    Args:
        total: radiographs to do; ``None`` where there is no end.
    """

    def __init__(self, total: int | None) -> None:
        self.total = total
        self.done = 0
        self._started = self._reported = time.monotonic()

    @property
    def rate(self) -> float:
        """Radiographs a second."""
        return self.done / max(time.monotonic() - self._started, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """Until the end, where there is one."""
        return None if self.total is None else (self.total - self.done) / max(self.rate, 1e-9)

    def is_due(self) -> bool:
        """Whether a minute has passed since the last account."""
        due = time.monotonic() - self._reported >= SECONDS_BETWEEN_REPORTS
        if due:
            self._reported = time.monotonic()
        return due

    def describe(self) -> str:
        """The progress as a line of text."""
        if self.total is None or self.seconds_left is None:
            return f"{self.done} done, {self.rate:.1f} images/s"
        return f"{self.done}/{self.total} done, {self.rate:.1f} images/s, {span(self.seconds_left)} left"


def shown(lines: Iterator[Line], total: int | None, *, logs: bool) -> Iterator[Line]:
    """Pass ``lines`` on, showing each as it comes.

    Args:
        lines: new lines of ``results.jsonl``.
        total: how many are to come; ``None`` where nobody knows.
        logs: whether they go to the log.
    """
    from rich.console import Console

    console = Console(stderr=True, highlight=False)
    if logs:
        return logged(lines, Pace(total))
    return with_bar(lines, total, console) if console.is_terminal and total is not None else printed(lines, Pace(total))


def logged(lines: Iterator[Line], pace: Pace) -> Iterator[Line]:
    """A line of log an image, and one a minute about the progress."""
    for number, record in lines:
        log_image(number, record)
        pace.done += 1
        if pace.is_due():
            left = pace.seconds_left
            log_event(
                "progress",
                done=pace.done,
                total=pace.total,
                images_per_second=round(pace.rate, 2),
                seconds_left=None if left is None else round(left),
            )
        yield number, record


def printed(lines: Iterator[Line], pace: Pace) -> Iterator[Line]:
    """A line of text an image, and one a minute about the progress."""
    for number, record in lines:
        click.echo(describe(record), err=True)
        pace.done += 1
        if pace.is_due():
            click.echo(f"progress {pace.describe()}", err=True)
        yield number, record


def with_bar(lines: Iterator[Line], total: int, console: Any) -> Iterator[Line]:
    """A progress bar with the time that is left; a line of text for what is not ``ok``."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"))
    pace = Pace(total)
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("segment", total=total, speed="")
        for number, record in lines:
            pace.done += 1
            if record["status"] != "ok":
                progress.console.print(describe(record), style=STATUS_COLOURS[record["status"]], markup=False)
            left = span(pace.seconds_left or 0)
            progress.update(task, advance=1, speed=f"{pace.rate:.1f} images/s, {left} left")
            yield number, record


def describe(record: dict[str, Any]) -> str:
    """One line of text for one line of ``results.jsonl``."""
    if record["status"] == "failed":
        return printable(f"failed   {record['input']}: {record['error']}")
    spent = sum(record["milliseconds"].values())
    lungs = f"lungs {record['lung_area_fraction']:.1%} of the image"
    text = printable(f"{record['status']:8} {record['input']}: {lungs}, {spent:.0f} ms")
    missing = [f"no {name}" for name in record["not_written"]]
    return f"{text} [{', '.join([*record['flags'], *missing])}]" if record["flags"] or missing else text


def span(seconds: float) -> str:
    """A time span as ``H:MM:SS``."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def print_summary(statuses: Counter[str], skipped: int, done: int, seconds: float, output: Path) -> None:
    """Print the table at the end of a run.

    Args:
        statuses: number of results by status, earlier ones too.
        skipped: files that are no radiographs.
        done: radiographs that this run did.
        seconds: that it took.
        output: the output folder.
    """
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(f"Results in {output}"), title_justify="left")
    for column in (*STATUS_COLOURS, "skipped", "seconds", "images/s"):
        table.add_column(column, justify="right")
    counts = [str(statuses[status]) for status in STATUS_COLOURS]
    table.add_row(*counts, str(skipped), f"{seconds:.1f}", f"{done / max(seconds, 1e-9):.1f}")
    Console().print(table)
