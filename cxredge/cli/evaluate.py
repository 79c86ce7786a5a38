"""``cxredge evaluate``: how well a model segments labelled data sets, also under distribution shift."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cxredge.backends import BACKENDS, PATHS
from cxredge.errors import MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cxredge.backends import BackendName, InferencePath
    from cxredge.data.dataset import Dataset
    from cxredge.evaluation.evaluate import Summary
    from cxredge.evaluation.shift import Level

MASKS = "masks:"
"""What a MODEL begins with that is a folder of masks in each data set."""
LEVELS: tuple[Level, ...] = ("none", "weak", "harsh")


def parse_levels(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[Level, ...]:
    """Levels of shift separated by commas, such as ``none,weak``, as a tuple in their own order."""
    named = value.split(",")
    unknown = set(named) - set(LEVELS)
    if unknown:
        raise click.BadParameter(f"{sorted(unknown)[0]!r} is not one of {', '.join(LEVELS)}")
    return tuple(level for level in LEVELS if level in named)


@click.command("evaluate", short_help="Score a model on labelled data sets.")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("datasets", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--split", "splits", multiple=True, help="Rows to score. [default: test and external-test]")
@click.option("--shift", "levels", callback=parse_levels, default="none", show_default=True, help="Of none,weak,harsh.")
@click.option(
    "--path",
    type=click.Choice(PATHS),
    default="direct",
    show_default=True,
    help="direct: G(u, a_self); of a checkpoint also indirect: G(G(u, a_da), a_seg), supervised: G(u, a_seg).",
)
@click.option("--where", "where", help="Score only rows that have a file in this folder of their data set.")
@click.option("--backend", type=click.Choice(BACKENDS), default="auto", show_default=True, help="What runs the model.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures to this file.")
@click.option("--figures", type=click.Path(path_type=Path), help="Draw pictures into this folder (extra 'evaluate').")
@click.option("--published", is_flag=True, help="Print the paper's Table 3 too.")
def command(
    model: Path,
    datasets: tuple[Path, ...],
    splits: tuple[str, ...],
    levels: tuple[Level, ...],
    path: InferencePath,
    where: str | None,
    backend: BackendName,
    json_file: Path | None,
    figures: Path | None,
    published: bool,
) -> None:
    """Score MODEL ("bundled" for the bundled one) on DATASETS: folders with images/, masks/ and manifest.csv.

    MODEL is a model file, a checkpoint folder, or masks:FOLDER for masks that stand in that folder of each
    data set, such as a peer's (rows without one are left out). Dice, IoU and HD95 of the lungs where both are
    labelled; true-positive ratio (TPR) of the abnormality in infection/, of all of it and of what
    lies inside the lungs. --shift repeats it on shifted radiographs (cxredge/evaluation/shift.py defines how).
    """
    from cxredge.data.dataset import open_dataset
    from cxredge.evaluation.evaluate import DEFAULT_SPLITS, evaluate, evaluate_masks, with_file
    from cxredge.evaluation.failures import failure_table
    from cxredge.runs.results import write_atomically
    from cxredge.segmenter import Segmenter

    peer = str(model).removeprefix(MASKS) if str(model).startswith(MASKS) else None
    if peer is not None and (levels != ("none",) or path != "direct"):
        raise click.UsageError("masks can be scored as they are only: without --shift and --path")
    chosen = None if str(model) == "bundled" or peer is not None else model
    opened = [open_dataset(folder) for folder in datasets]
    if where is not None:
        opened = [with_file(data, where) for data in opened]
    scored = [data for data in opened if figures is None or any(case.mask or case.infection for case in data.cases)]
    facts: dict[str, str]
    if peer is not None:
        summaries = [evaluate_masks(data, peer, splits or DEFAULT_SPLITS) for data in scored]
        facts = {"model": peer}
    else:
        with Segmenter.load(chosen, backend=backend, threads=1, path=path) as segmenter:
            summaries = [
                evaluate(segmenter, data, splits or DEFAULT_SPLITS, level) for data in scored for level in levels
            ]
            facts = {"model": segmenter.contract.name, "code": segmenter.contract.code, "path": path}
    content = {
        **facts,
        "datasets": [{**summary.to_dict(), "failures": failure_table(summary)} for summary in summaries],
    }
    print_scores(summaries)
    print_failures(summaries)
    if published:
        print_published()
    if json_file is not None:
        write_atomically(json_file, json.dumps(content, indent=2).encode())
    if figures is not None:
        for file in draw(chosen, opened, summaries, splits or DEFAULT_SPLITS, levels, figures):
            click.echo(file)


def draw(
    model: Path | None,
    datasets: list[Dataset],
    summaries: list[Summary],
    splits: tuple[str, ...],
    levels: tuple[Level, ...],
    folder: Path,
) -> Iterator[Path]:
    """Draw the scores, and the adaptation of a checkpoint that has adapted; yields the files."""
    try:
        from cxredge.evaluation.figures import draw_figures
    except ModuleNotFoundError as error:
        raise MissingExtraError("drawing figures", "evaluate") from error
    yield from draw_figures(summaries, folder)
    if model is not None and model.is_dir():
        from cxredge_train.adaptation_report import draw_adaptation
        from cxredge_train.checkpoint import load_trained

        if load_trained(model).adapted:
            for data in datasets:
                for level in levels:
                    yield from draw_adaptation(model, data, folder, splits, level)


def print_failures(summaries: list[Summary]) -> None:
    """Print the names of the poor cases by category, if there are any."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from cxredge.evaluation.evaluate import POOR_DICE
    from cxredge.evaluation.failures import POOR_TPR, failure_table

    table = Table(title=f"poor cases: Dice < {POOR_DICE} or TPR inside the lung < {POOR_TPR}", title_justify="left")
    for title in ("data set", "shift", "failure", "cases"):
        table.add_column(title)
    for summary in summaries:
        for category, names in failure_table(summary).items():
            found = f"{len(names)}: {escape(', '.join(names))}"
            table.add_row(escape(summary.dataset), summary.level, category.replace("_", " "), found)
    if table.row_count:
        Console().print(table)


def print_scores(summaries: list[Summary]) -> None:
    """Print mean ± standard deviation (minimum) of each measure by data set and shift."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from cxredge.evaluation.evaluate import DICE, HD95, IOU, POOR_DICE, TPR, TPR_INSIDE

    table = Table(title="mean ± sd (minimum)", title_justify="left")
    table.add_column("data set")
    table.add_column("shift")
    table.add_column("cases", justify="right")
    titles = {DICE: "Dice", IOU: "IoU", HD95: "HD95 px", TPR: "TPR", TPR_INSIDE: "TPR inside the lung"}
    for title in (*titles.values(), f"Dice < {POOR_DICE}"):
        table.add_column(title, justify="right")
    for summary in summaries:
        cells = []
        for measure in titles:
            values = summary.values(measure)
            cells.append(f"{values.mean():.3f} ± {values.std():.3f} ({values.min():.3f})" if len(values) else "–")
        poor = summary.values(DICE) < POOR_DICE
        table.add_row(
            escape(summary.dataset),
            summary.level,
            str(len(summary.scores)),
            *cells,
            f"{poor.sum()} of {len(poor)}" if len(poor) else "–",
        )
    console = Console()
    Console(width=max(console.width, 130)).print(table)


def print_published() -> None:
    """Print the paper's Table 3."""
    from rich.console import Console
    from rich.table import Table

    from cxredge.evaluation.published import TABLE_3

    table = Table(title="Published: Oh & Ye, ECCV 2022, Table 3 (other images)", title_justify="left")
    table.add_column("method")
    for title in ("Dice none", "weak", "harsh", "TPR none", "weak", "harsh"):
        table.add_column(title, justify="right")
    for row in TABLE_3:
        table.add_row(row.method, *(f"{value:.2f}" for value in (*row.dice, *row.tpr)))
    Console().print(table)
