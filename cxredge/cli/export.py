"""``cxredge export``: from a checkpoint to a model file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cxredge.errors import ConfigError, MissingExtraError

if TYPE_CHECKING:
    from cxredge.radiograph import Radiograph

MADE_RADIOGRAPHS = 8


@click.command("export", short_help="Turn a checkpoint into a model file.")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="ONNX file to write.")
@click.option(
    "--parity-images",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Radiographs, folders, or data sets (their test rows) for the parity check. [default: made radiographs]",
)
@click.option("--licence", help="Terms of the weights. [default: research use, as those of the bundled model]")
@click.option("--name", help="Name of the model. [default: the file's stem]")
@click.option(
    "--measured",
    type=click.Path(path_type=Path),
    help="JSON file of 'cxredge evaluate --json', to travel in the contract.",
)
def command(
    checkpoint: Path,
    output: Path,
    parity_images: tuple[Path, ...],
    licence: str | None,
    name: str | None,
    measured: Path | None,
) -> None:
    """Fold the fixed code of CHECKPOINT into the generator and write it as one ONNX file.

    The file is compared with the checkpoint in PyTorch first; a file whose masks differ is not written.
    """
    try:
        from cxredge_export.export import RESEARCH_LICENCE, export_model
    except ModuleNotFoundError as error:
        raise MissingExtraError("exporting", "export") from error
    figures = read_measured(measured)
    contract = export_model(
        checkpoint,
        output,
        parity_radiographs(parity_images),
        name=name,
        licence=licence or RESEARCH_LICENCE,
        measured=figures,
    )
    parity = contract.parity
    click.echo(
        f"{output}: {contract.name}, width {contract.width}, code {contract.code}, {contract.precision}; "
        f"parity on {parity['images']} images: {parity['flipped_pixels']} of {parity['pixels']} mask pixels flipped, "
        f"largest logit difference {parity['max_abs_difference']:.2g}"
    )


def parity_radiographs(paths: tuple[Path, ...]) -> list[Radiograph]:
    """What the parity check runs on: test rows of data sets, other radiographs, or made ones."""
    from cxredge.dataset import MANIFEST, open_dataset
    from cxredge.discovery import find_radiographs
    from cxredge.evaluation import DEFAULT_SPLITS
    from cxredge.phantom import make_radiograph
    from cxredge.radiograph import Radiograph, read_radiograph

    if not paths:
        return [Radiograph(make_radiograph(seed).pixels) for seed in range(MADE_RADIOGRAPHS)]
    files: list[Path] = []
    for path in paths:
        if (path / MANIFEST).is_file():
            files += [case.image for case in open_dataset(path).split(*DEFAULT_SPLITS)]
        else:
            files += [target.source for target in find_radiographs([path], Path(os.devnull)).targets]
    return [read_radiograph(file) for file in files]


def read_measured(path: Path | None) -> dict[str, object]:
    """The figures that ``cxredge evaluate --json`` wrote."""
    if path is None:
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict) or "datasets" not in content:
        raise ConfigError(f"{path}: is not a file of 'cxredge evaluate --json'")
    return {"datasets": content["datasets"]}
