"""``cxredge export``: from a checkpoint to a model file, or from a model file to one of another precision."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cxredge.bundle import bundled_model
from cxredge.errors import ConfigError, MissingExtraError, ModelError, ParityError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import TypeAlias

    from onnx import ModelProto

    from cxredge.radiograph import Radiograph
    from cxredge_export.cost import Cost

    Models: TypeAlias = Callable[[], dict[str, ModelProto]]

PRECISIONS = ("fp32", "fp16")
FP16_SUFFIX = ".fp16.onnx"
UNFOLDED = "unfolded (adain only)"
AS_GIVEN = "as given"
BUNDLED = "bundled"
"""Source that stands for the bundled model."""


def parse_precisions(_ctx: click.Context, _param: click.Parameter, value: str | None) -> tuple[str, ...] | None:
    """Precisions separated by commas, such as ``fp32,fp16``, as a tuple in that order."""
    if value is None:
        return None
    named = value.split(",")
    unknown = set(named) - set(PRECISIONS)
    if unknown:
        raise click.BadParameter(f"{sorted(unknown)[0]!r} is not one of {', '.join(PRECISIONS)}")
    return tuple(precision for precision in PRECISIONS if precision in named)


@click.command("export", short_help="Turn a checkpoint into a model file.")
@click.argument("source", metavar="CHECKPOINT|MODEL|ENGINE", type=click.Path(path_type=Path))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    help=f"ONNX file to write. Of a CHECKPOINT it is NAME.onnx, and FP16 is written to NAME{FP16_SUFFIX}.",
)
@click.option("--folds", help="all, none, or names with commas; 'adain' always is applied.  [default: all]")
@click.option(
    "--precision", "precisions", callback=parse_precisions, help="Of fp32,fp16.  [default: fp32; of a MODEL: fp16]"
)
@click.option(
    "--parity-images",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Radiographs, folders, or data sets (their test rows) for the parity check.  [default: made radiographs]",
)
@click.option("--licence", help="Terms of the weights.  [default: research use, as those of the bundled model]")
@click.option("--name", help="Name of the model.  [default: the file's stem]")
@click.option(
    "--measured",
    type=click.Path(path_type=Path),
    help="JSON file of 'cxredge evaluate --json', to travel in the contract.",
)
@click.option(
    "--triton",
    type=click.Path(path_type=Path),
    help="Add MODEL, or the plan of an engine, to this Triton model repository instead.",
)
@click.option(
    "--with-processing",
    is_flag=True,
    help="Write a model that takes raw images and gives masks of their size, for programs in any language.",
)
@click.option("--report", is_flag=True, help="Print GMAC, weights, bytes and CPU latency before and after.")
@click.option("--report-json", type=click.Path(path_type=Path), help="Write that report to this file.")
def command(
    source: Path,
    output: Path | None,
    folds: str | None,
    precisions: tuple[str, ...] | None,
    parity_images: tuple[Path, ...],
    licence: str | None,
    name: str | None,
    measured: Path | None,
    triton: Path | None,
    with_processing: bool,
    report: bool,
    report_json: Path | None,
) -> None:
    """Write CHECKPOINT with its code folded in as one ONNX file; or MODEL, such a file, in FP16.

    Folds are exact, and any choice of them is valid: 'adain' makes the network plain; norm-bias,
    shortcut, pool-conv, up-conv, up-phases (goes further than up-conv, for ONNX Runtime) and head make it
    cheaper. A file is compared with what it was made from first, a folded network with the unfolded one in
    PyTorch, an FP16 model with the FP32 or INT8 one; it is not written if its masks differ. With --triton,
    MODEL ("bundled" for the bundled one) or the plan ENGINE is put as it is where NVIDIA's Triton Inference Server
    finds it.

    With --with-processing, normalisation, resizing and scaling back to the image's size are in the file too, of
    a CHECKPOINT or of MODEL ("bundled" for the bundled one) in its own precision: see docs/any-language.md.
    """
    from cxredge.evaluation.parity_set import parity_radiographs

    given = {"name": name, "licence": licence, "folds": folds, "measured": measured and read_measured(measured)}
    options = {option: value for option, value in given.items() if value is not None}
    if triton is not None:
        others: dict[str, Any] = given | {"output": output, "precision": precisions}
        others["parity-images"] = parity_images or None
        others["with-processing"] = with_processing or None
        add_to_repository(source, triton, name, [option for option in others if others[option] is not None])
        return
    if output is None:
        raise click.UsageError("Missing option '-o' / '--output'.")
    if with_processing and (report or report_json is not None):
        raise click.UsageError("--report measures networks, leave --with-processing away")
    source = bundled_model() if str(source) == BUNDLED else source
    typing = source.is_file() or source.suffix == ".onnx"
    chosen = precisions or ((AS_GIVEN if with_processing else "fp16",) if typing else ("fp32",))
    paths = dict.fromkeys(chosen, output) if typing else output_paths(output, chosen)
    radiographs = parity_radiographs(parity_images)
    if typing:
        before, models = from_model(source, chosen, options, radiographs)
    else:
        stem = output.name.removesuffix(".onnx").removesuffix(".fp16")
        before, models = from_checkpoint(source, chosen, {"name": stem, **options}, radiographs)
    if with_processing:
        models = with_processing_inside(models, radiographs)
    write_models(models, paths)
    if report or report_json is not None:
        measured_models = before() | {paths[precision].name: model for precision, model in models.items()}
        report_costs(measured_models, report_json, printed=report)


def add_to_repository(source: Path, repository: Path, name: str | None, given: Sequence[str]) -> None:
    """Add a model file or an engine to a Triton model repository and say where it is."""
    from cxredge_export.triton import write_repository

    wrong = [f"--{option}" for option in given if option != "name"]
    if wrong:
        raise click.UsageError(f"--triton takes a finished model or engine as it is, without {', '.join(wrong)}")
    if source.is_dir():
        raise click.UsageError(f"{source}: is a checkpoint; export it to a model file first, then add that")
    chosen = bundled_model() if str(source) == BUNDLED else source
    click.echo(f"{write_repository(chosen, repository, name)}: ready for tritonserver --model-repository={repository}")


def output_paths(output: Path, precisions: tuple[str, ...]) -> dict[str, Path]:
    """File of each precision of a checkpoint: ``output`` of fp32, NAME.fp16.onnx of fp16.

    Raises:
        click.UsageError: an FP32 file would be named as an FP16 one is.
    """
    typed = output.name.endswith(FP16_SUFFIX)
    if typed and "fp32" in precisions:
        raise click.UsageError(f"{output}: is the name of an FP16 model; name NAME.onnx, or --precision fp16 alone")
    return {p: output if p == "fp32" or typed else output.with_suffix(FP16_SUFFIX) for p in precisions}


def from_checkpoint(
    checkpoint: Path, precisions: tuple[str, ...], options: dict[str, Any], radiographs: Sequence[Radiograph]
) -> tuple[Models, dict[str, ModelProto]]:
    """The models of a checkpoint by precision, and what gives the one that their costs are compared with."""
    try:
        from cxredge_export.export import make_model, unfolded_model
        from cxredge_export.folding import parse_folds
        from cxredge_export.precision import compared_fp16
    except ModuleNotFoundError as error:
        raise MissingExtraError("exporting a checkpoint", "export") from error
    try:
        folds = parse_folds(options.pop("folds", "all"))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--folds") from error
    model = make_model(checkpoint, radiographs, folds=folds, **options)
    models = {p: model if p == "fp32" else compared_fp16(model, radiographs) for p in precisions}
    return lambda: {UNFOLDED: unfolded_model(checkpoint)}, models


def from_model(
    source: Path, precisions: tuple[str, ...], options: dict[str, Any], radiographs: Sequence[Radiograph]
) -> tuple[Models, dict[str, ModelProto]]:
    """A model file in FP16 or as it is, and what gives the file's own model."""
    if options:
        raise click.UsageError(f"{source}: is a model file, whose {', '.join(options)} cannot be changed any more")
    if precisions not in (("fp16",), (AS_GIVEN,)):
        raise click.UsageError(f"{source}: is a model file, which can only be typed: --precision fp16")
    try:
        from cxredge_calibration.model_file import read_model
        from cxredge_export.precision import compared_fp16
    except ModuleNotFoundError as error:
        raise MissingExtraError("typing a model", "calibration") from error
    model, _ = read_model(source)
    if precisions == (AS_GIVEN,):
        return lambda: {AS_GIVEN: model}, {AS_GIVEN: model}
    try:
        typed = compared_fp16(model, radiographs)
    except (ModelError, ParityError) as error:
        raise type(error)(f"{source}: {error}") from error
    return lambda: {AS_GIVEN: model}, {"fp16": typed}


def with_processing_inside(
    models: Mapping[str, ModelProto], radiographs: Sequence[Radiograph]
) -> dict[str, ModelProto]:
    """Every model with its processing inside, compared with cxredge's own."""
    from cxredge_export.processing_parity import compared_processing

    return {precision: compared_processing(model, radiographs) for precision, model in models.items()}


def write_models(models: Mapping[str, ModelProto], paths: Mapping[str, Path]) -> None:
    """Write every model and say what it is and how close to what it was made from."""
    from cxredge_calibration.model_file import read_contract, write_model

    for precision, model in models.items():
        write_model(model, paths[precision])
        contract = read_contract(model, with_processing=True)
        parity = contract.parity
        compared = "compared with FP32 by its calibration"
        if parity:
            compared = (
                f"parity on {parity['images']} images: {parity['flipped_pixels']} of {parity['pixels']} mask pixels "
                f"flipped, largest logit difference {parity['max_abs_difference']:.2g}"
                + (f"; folding alone flips {parity['folding']['flipped_pixels']}" if "folding" in parity else "")
            )
        what = f"{contract.name}, width {contract.width}, code {contract.code}, {contract.precision}"
        click.echo(f"{paths[precision]}: {what}; {compared}")
        if contract.processing is not None:
            inside = contract.processing["parity"]
            click.echo(
                f"processing inside, on {inside['images']} images: {inside['flipped_pixels']} of {inside['pixels']} "
                f"mask pixels flipped, largest logit difference {inside['max_abs_difference']:.2g}; cleaning, which "
                f"is left to the caller, changes {inside['cleaned_pixels']}"
            )


def report_costs(models: Mapping[str, ModelProto], path: Path | None, *, printed: bool) -> None:
    """Measure what the models cost on this machine, print it, write it to ``path``."""
    from cxredge.pipeline import available_cores
    from cxredge.runs.results import write_atomically
    from cxredge_export.cost import measure_costs

    threads = available_cores()
    costs = measure_costs(models, threads)
    if printed:
        print_costs(costs, threads)
    if path is not None:
        content = {"threads": threads, "models": {name: cost.to_dict() for name, cost in costs.items()}}
        write_atomically(path, json.dumps(content, indent=2).encode())


def print_costs(costs: Mapping[str, Cost], threads: int) -> None:
    """Print the costs as a table; latencies also as shares of the first model's."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=f"ONNX Runtime on this CPU, {threads} threads, one image at a time", title_justify="left")
    table.add_column("model")
    for title in ("GMAC", "weights", "bytes", "latency ms", "of the first"):
        table.add_column(title, justify="right")
    first = next(iter(costs.values())).latency_ms
    for name, cost in costs.items():
        latency = (f"{cost.latency_ms:.1f}", f"{cost.latency_ms / first:.2f}")
        table.add_row(escape(name), f"{cost.gmac:.2f}", f"{cost.parameters:,}", f"{cost.bytes:,}", *latency)
    Console().print(table)


def read_measured(path: Path) -> dict[str, object]:
    """The figures that ``cxredge evaluate --json`` wrote."""
    from cxredge.limits import read_json

    try:
        content = read_json(path)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    if not isinstance(content, dict) or "datasets" not in content:
        raise ConfigError(f"{path}: is not a file of 'cxredge evaluate --json'")
    return {"datasets": content["datasets"]}
