"""``cxredge sample``: something to run for a newcomer without data."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("sample", short_help="Write a few made radiographs.")
@click.argument("folder", type=click.Path(path_type=Path))
def command(folder: Path) -> None:
    """Write a few made radiographs (PNG of 8 and 16 bits, DICOM) into FOLDER.

    They are drawn, not taken: no patient stands behind them.
    """
    from cxredge.sample import write_samples

    for path in write_samples(folder):
        click.echo(path)
