"""``cxredge train``: the trainer on the command line."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

import click

from cxredge.errors import MissingExtraError

if TYPE_CHECKING:
    from cxredge_train.training import Progress

PLAIN_LINE_EVERY = 50


@click.command("train", short_help="Train the networks.")
@click.argument("config")
@click.option(
    "--data",
    type=click.Path(path_type=Path, file_okay=False),
    envvar="CXREDGE_DATA",
    help="Folder of the data sets. [default: $CXREDGE_DATA]",
)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Checkpoint folder.")
@click.option("--init", type=click.Path(path_type=Path), help="Checkpoint whose weights a new run starts from.")
@click.option("--resume", is_flag=True, help="Continue the checkpoint in the output folder, if there is one.")
@click.option("--max-minutes", type=click.FloatRange(0, min_open=True), help="Save and stop after this time.")
@click.option(
    "--set", "changes", multiple=True, metavar="TABLE.FIELD=VALUE", help="Change a field of CONFIG (in TOML)."
)
@click.option("--show", is_flag=True, help="Print the whole configuration and stop.")
def command(
    config: str,
    data: Path | None,
    output: Path | None,
    init: Path | None,
    resume: bool,
    max_minutes: float | None,
    changes: tuple[str, ...],
    show: bool,
) -> None:
    """Train by CONFIG: the name of a configuration that comes with cxredge (edge, standard, paper,
    edge-augmented) or a TOML file.

    Stops cleanly at the time limit, at Ctrl-C and at SIGTERM: the checkpoint is saved and --resume
    continues exactly there.
    """
    try:
        from cxredge_train.config_file import config_path, read_config
        from cxredge_train.training import train
    except ModuleNotFoundError as error:
        raise MissingExtraError("training", "train") from error
    configuration = read_config(config_path(config), changes)
    if show:
        click.echo(configuration.to_toml())
        return
    if data is None or output is None:
        raise click.UsageError("--data (or $CXREDGE_DATA) and --output are needed")
    with stop_on_signals() as stop, progress_bar() as report:
        outcome = train(
            configuration,
            data,
            output,
            continue_run=resume,
            init=init,
            max_minutes=max_minutes,
            report=report,
            stop=stop,
        )
    dice = ", ".join(f"validation Dice {path} {value:.4f}" for path, value in outcome.validation.items())
    state = "finished" if outcome.finished else "stopped; continue with --resume"
    click.echo(f"{output}: iteration {outcome.iteration}, {dice or 'not validated yet'}, {state}")


@contextmanager
def stop_on_signals() -> Iterator[Callable[[], bool]]:
    """Turn SIGINT and SIGTERM into a question that the trainer asks after each iteration."""
    received: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    before = {number: signal.signal(number, remember) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def progress_bar() -> Iterator[Callable[[Progress], None]]:
    """A progress bar on a terminal, plain lines now and then elsewhere."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True, highlight=False)
    if not console.is_terminal:
        yield plain_line
        return
    with Bar(
        BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[facts]}"), TimeRemainingColumn(), console=console
    ) as bar:
        task = bar.add_task("train", total=None, facts="")

        def report(progress: Progress) -> None:
            bar.update(task, completed=progress.iteration, total=progress.iterations, facts=facts(progress))
            if progress.validation is not None:
                bar.console.print(f"{progress.iteration}: {facts(progress)}")

        yield report


def plain_line(progress: Progress) -> None:
    """Print every fiftieth iteration and every validation."""
    if progress.iteration % PLAIN_LINE_EVERY == 0 or progress.validation is not None:
        click.echo(f"{progress.iteration}/{progress.iterations} {facts(progress)}", err=True)


def facts(progress: Progress) -> str:
    """Losses, speed and validation Dice as text."""
    parts = [progress.stage.value, *(f"{name} {value:.4f}" for name, value in progress.terms.items())]
    parts.append(f"{progress.images_per_second:.1f} images/s")
    if progress.validation is not None:
        parts.append(f"validation {progress.validation}")
    return ", ".join(parts)
