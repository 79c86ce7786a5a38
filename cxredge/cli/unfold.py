"""``cxredge unfold``: from a model file back to a checkpoint that training can go on from."""

from __future__ import annotations

from pathlib import Path

import click

from cxredge.bundle import bundled_model
from cxredge.errors import MissingExtraError


@click.command("unfold", short_help="Turn a model file back into a checkpoint.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Checkpoint folder to write.",
)
@click.option(
    "--parity-images",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Radiographs, folders, or data sets (their test rows) for the parity check.  [default: made radiographs]",
)
def command(model: Path, output: Path, parity_images: tuple[Path, ...]) -> None:
    """Write a checkpoint that computes what MODEL ("bundled" for the bundled one) does, an FP32 file of 'cxredge
    export'. Training can start from it (--init); it cannot be resumed.

    Its a_seg path is the model, whichever code was folded in, and its a_self starts equal to that. The other networks,
    of which a model file has nothing, are drawn anew. Nothing is written if both differ by more than rounding; more
    --parity-images make it less likely that one pixel on the edge counts as more.
    """
    from cxredge.evaluation.parity_set import parity_radiographs

    try:
        from cxredge_export.unfolding import checkpoint_from_model
    except ModuleNotFoundError as error:
        raise MissingExtraError("unfolding a model", "export") from error
    source = bundled_model() if str(model) == "bundled" else model
    parity = checkpoint_from_model(source, output, parity_radiographs(parity_images))
    click.echo(
        f"{output}: parity on {parity.images} images: {parity.flipped_pixels} of {parity.pixels} mask pixels flipped, "
        f"largest logit difference {parity.max_abs_difference:.2g}"
    )
