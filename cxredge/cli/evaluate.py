"""``cxredge evaluate``: how well a model segments labelled data sets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cxredge.backends import BACKENDS

if TYPE_CHECKING:
    from cxredge.backends import BackendName
    from cxredge.evaluation import Summary


@click.command("evaluate", short_help="Score a model on labelled data sets.")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("datasets", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--split", "splits", multiple=True, help="Rows to score. [default: test and external-test]")
@click.option("--backend", type=click.Choice(BACKENDS), default="auto", show_default=True, help="What runs the model.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures to this file.")
def command(
    model: Path, datasets: tuple[Path, ...], splits: tuple[str, ...], backend: BackendName, json_file: Path | None
) -> None:
    """Score MODEL ("bundled" for the bundled one) on DATASETS: folders with images/, masks/ and manifest.csv.

    Dice of the lungs where both are labelled; true-positive ratio (TPR) of the abnormality in
    infection/, of all of it and of what lies inside the lungs.
    """
    from cxredge.dataset import open_dataset
    from cxredge.evaluation import DEFAULT_SPLITS, evaluate
    from cxredge.results import write_atomically
    from cxredge.segmenter import Segmenter

    with Segmenter.load(None if str(model) == "bundled" else model, backend=backend, threads=1) as segmenter:
        summaries = [evaluate(segmenter, open_dataset(folder), splits or DEFAULT_SPLITS) for folder in datasets]
        content = {"model": segmenter.contract.name, "datasets": [summary.to_dict() for summary in summaries]}
    print_scores(summaries)
    if json_file is not None:
        write_atomically(json_file, json.dumps(content, indent=2).encode())


def print_scores(summaries: list[Summary]) -> None:
    """Print mean ± standard deviation (minimum) of each measure by data set."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from cxredge.evaluation import DICE, TPR, TPR_INSIDE

    table = Table(title="mean ± sd (minimum; cases)", title_justify="left")
    table.add_column("data set")
    for title in ("Dice", "TPR", "TPR inside the lung"):
        table.add_column(title, justify="right")
    for summary in summaries:
        cells = []
        for measure in (DICE, TPR, TPR_INSIDE):
            values = summary.values(measure)
            cells.append(
                f"{values.mean():.4f} ± {values.std():.4f} ({values.min():.3f}; {len(values)})" if len(values) else "–"
            )
        table.add_row(escape(summary.dataset), *cells)
    Console(width=None).print(table)
