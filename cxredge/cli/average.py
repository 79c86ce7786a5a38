"""``cxredge average``: the mean of a checkpoint and of the one that its training started from."""

from __future__ import annotations

from pathlib import Path

import click

from cxredge.errors import MissingExtraError

FOLDER = click.Path(path_type=Path, file_okay=False)


@click.command("average", short_help="Average a checkpoint with the one that it started from.")
@click.argument("start", type=FOLDER)
@click.argument("tuned", type=FOLDER)
@click.option("-o", "--output", type=FOLDER, required=True, help="Checkpoint folder to write.")
@click.option(
    "--share", type=click.FloatRange(0, 1), default=0.5, show_default=True, help="Of TUNED; the rest is START's."
)
def command(start: Path, tuned: Path, output: Path, share: float) -> None:
    """Write the mean of the weights of START and of TUNED, a checkpoint with stage 2 that was trained from START.

    It keeps most of what TUNED has gained and START had not lost. It can be evaluated, exported, and trained
    further (--init), but not resumed.
    """
    try:
        from cxredge_train.averaging import average_checkpoints
    except ModuleNotFoundError as error:
        raise MissingExtraError("averaging checkpoints", "train") from error
    average_checkpoints(start, tuned, output, share)
    click.echo(f"{output}: {1 - share:g} of {start}, {share:g} of {tuned}")
