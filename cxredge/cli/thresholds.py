"""``cxredge thresholds``: statistics and thresholds of the quality flags, into a model's contract."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from cxredge.errors import MissingExtraError

if TYPE_CHECKING:
    from cxredge.quality.reference import Reference


@click.command("thresholds", short_help="Derive a model's quality flags from radiographs.")
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("datasets", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Model file to write.")
def command(model: Path, datasets: tuple[Path, ...], output: Path) -> None:
    """Derive the thresholds of the quality flags of MODEL ("bundled" for the bundled one) from DATASETS.

    Only training and validation rows are used: folders with images/ and manifest.csv, labels are not needed. The
    weights stay as they are; OUTPUT may be MODEL itself. FP16 and INT8 models and engines made of OUTPUT carry the
    thresholds on.
    """
    from dataclasses import replace

    from cxredge.bundle import bundled_model
    from cxredge.data.dataset import open_dataset
    from cxredge.quality.thresholds import derive_reference
    from cxredge.segmenter import Segmenter

    try:
        from cxredge_calibration.model_file import add_contract, read_model, write_model
    except ModuleNotFoundError as error:
        raise MissingExtraError("writing a model", "calibration") from error
    chosen = bundled_model() if str(model) == "bundled" else model
    opened = [open_dataset(folder) for folder in datasets]
    network, contract = read_model(chosen)
    with Segmenter.load(chosen, backend="onnxruntime", threads=1) as segmenter:
        reference = derive_reference(segmenter, opened)
    carried = replace(contract, input_statistics=reference.statistics, flag_thresholds=reference.thresholds)
    add_contract(network, carried)
    write_model(network, output)
    print_limits(reference, output)


def print_limits(reference: Reference, output: Path) -> None:
    """Print the thresholds, and what they were derived from."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from cxredge.quality.flags import BELOW

    table = Table(title=escape(str(output)), title_justify="left")
    table.add_column("flag")
    table.add_column("where", justify="right")
    for flag, limit in reference.limits.items():
        table.add_row(flag, f"{'<' if flag in BELOW else '>'} {limit:g}")
    Console().print(table)
    counts = ", ".join(f"{name} {count}" for name, count in reference.source["radiographs"].items())
    click.echo(f"from {counts} radiographs; {reference.source['without_two_lungs']} without two lungs were left out")
