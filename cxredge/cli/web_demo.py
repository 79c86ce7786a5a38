"""``cxredge web-demo``: one HTML page that segments a dropped PNG in the browser, without a network."""

from __future__ import annotations

from pathlib import Path

import click

from cxredge.errors import MissingExtraError

INSTALLED = Path("node_modules", "onnxruntime-web")


@click.command("web-demo", short_help="Write a page that segments in the browser.")
@click.option("-o", "--output", required=True, type=click.Path(path_type=Path), help="Folder for index.html.")
@click.option("--model", type=click.Path(path_type=Path), help="Model file.  [default: the bundled model]")
@click.option(
    "--ort",
    type=click.Path(path_type=Path),
    help=f"npm's package onnxruntime-web: its folder, or the archive of 'npm pack'.  [default: ./{INSTALLED}]",
)
@click.option("--fetch", is_flag=True, help="Let npm fetch that package now instead.")
def command(output: Path, model: Path | None, ort: Path | None, fetch: bool) -> None:
    """Write a page that segments a PNG dropped on it, with the model and ONNX Runtime for browsers inside.

    It is one file of about 30 MB, that can be opened from a disk, and makes no connection.
    """
    from cxredge.bundle import bundled_model
    from cxredge.evaluation.parity_set import parity_radiographs
    from cxredge.web_demo import fetch_runtime, read_runtime, write_demo

    if fetch and ort is not None:
        raise click.UsageError("--fetch or --ort, not both")
    try:
        from cxredge_calibration.model_file import read_contract, read_model
        from cxredge_export.processing_parity import compared_processing
    except ModuleNotFoundError as error:
        raise MissingExtraError("putting the processing into the model", "calibration") from error
    runtime = fetch_runtime() if fetch else read_runtime(ort or INSTALLED)
    whole, contract = read_model(model or bundled_model(), with_processing=True)
    if contract.processing is None:
        whole = compared_processing(whole, parity_radiographs())
        contract = read_contract(whole, with_processing=True)
    click.echo(f"{write_demo(output, whole.SerializeToString(), contract, runtime)}: open it in a browser")
