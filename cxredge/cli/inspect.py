"""``cxredge inspect``: what is in a model file, an engine or a checkpoint."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from cxredge.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cxredge.contract import Contract
    from cxredge.engine.inspection import EngineInspection
    from cxredge.engine.record import EngineRecord
    from cxredge_train.code_report import LayerCode

MODEL_SUFFIX = ".onnx"
CONVOLUTIONS = ("Conv", "ConvTranspose")
"""Layers that are shown one by one; of the others the numbers are."""
CONTRACT_ROWS = ("name", "width", "input_size", "precision", "code", "folds", "output", "licence", "intended_use")
RECORD_ROWS = (
    "flavour",
    "version",
    "compute_capability",
    "gpu_name",
    "driver",
    "precision",
    "batches",
    "plan_bytes",
    "model_sha256",
    "options",
    "build_seconds",
    "created",
)


@click.command("inspect", short_help="Show what is in a model file, an engine or a checkpoint.")
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--model", type=click.Path(path_type=Path), help="Model file that an engine should be of, to compare it with."
)
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write all that is found to this file.")
def command(file: Path, model: Path | None, json_file: Path | None) -> None:
    """Show the contract of a model FILE (.onnx) and the precision of its layers.

    For an engine, a plan with its sidecar, show the sidecar, whether the plan is the one that it describes, and
    what would make the engine be rebuilt on this machine. For a checkpoint folder, show how it was trained and
    how far a_self has moved in each encoder AdaIN layer.
    """
    from cxredge.runs.results import write_atomically

    if file.is_dir():
        found = inspect_checkpoint(file)
    elif not file.is_file():
        raise InputError("there is no such file", file)
    else:
        found = inspect_model(file) if file.suffix.lower() == MODEL_SUFFIX else inspect_plan(file, model)
    if json_file is not None:
        write_atomically(json_file, json.dumps(found, indent=2).encode())


def inspect_model(file: Path) -> dict[str, Any]:
    """Print what is in a model file; returns it as a JSON object."""
    from cxredge.engine.inspection import engines_of
    from cxredge.engine.order import model_contract

    contract = model_contract(file, with_processing=True)
    print_rows(str(file), contract_rows(contract))
    layers = read_layers(file)
    engines = engines_of(file)
    print_engines(engines)
    return {
        "kind": "model",
        "file": str(file),
        "contract": json.loads(contract.to_json()),
        "layers": layers,
        "engines": [str(plan) for plan, _ in engines],
    }


def contract_rows(contract: Contract) -> dict[str, object]:
    """What is shown of a contract; the JSON file has all."""
    rows = {name: getattr(contract, name) for name in CONTRACT_ROWS}
    return {
        **rows,
        "folds": ", ".join(contract.folds) or "none",
        "trained on": ", ".join(contract.provenance.get("data", ())) or "not said",
        "commit": contract.provenance.get("commit") or "not said",
        "measured": ", ".join(measured_sets(contract)) or "nothing",
        "calibration": "yes" if contract.calibration else "none",
        "processing": "inside" if contract.processing else "outside",
        "flags": flags_known(contract),
    }


def flags_known(contract: Contract) -> str:
    """Which quality flags the model can give, and what they were derived from."""
    reference = contract.reference
    if reference is None:
        return "basic only (no thresholds; 'cxredge thresholds' derives them)"
    counts = ", ".join(f"{count} of {name}" for name, count in reference.source.get("radiographs", {}).items())
    return f"all, by the radiographs {counts or 'not said'}"


def measured_sets(contract: Contract) -> list[str]:
    """The data sets on which the model was measured, each with its mean Dice where there is one."""
    found = []
    for figures in contract.measured.get("datasets", ()):
        dice = (figures.get("dice") or {}).get("mean")
        found.append(str(figures.get("dataset")) + (f" Dice {dice:.4f}" if isinstance(dice, float) else ""))
    return found


def read_layers(file: Path) -> list[dict[str, Any]] | None:
    """Print and return the layers of a model; ``None``, and how to get them, where onnx is not installed."""
    try:
        from cxredge_export.layers import read_layers as read
    except ModuleNotFoundError:
        click.echo(str(MissingExtraError("the precision of each layer", "calibration")))
        return None
    layers = read(file)
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title="convolutions", title_justify="left")
    for column in ("operator", "precision", "layer"):
        table.add_column(column, overflow="fold")
    table.add_column("parameters", justify="right")
    for layer in layers:
        if layer.operator in CONVOLUTIONS:
            table.add_row(layer.operator, layer.precision, escape(layer.name), f"{layer.parameters:,}")
    Console().print(table)
    counts = Counter((layer.precision, layer.operator) for layer in layers)
    click.echo("; ".join(f"{precision} {operator}: {count}" for (precision, operator), count in sorted(counts.items())))
    return [layer.to_dict() for layer in layers]


def print_engines(engines: Iterable[tuple[Path, EngineRecord]]) -> None:
    """Print the engines of a model that are in the cache."""
    for plan, record in engines:
        click.echo(
            f"engine {plan}: {record.precision} for compute capability {record.compute_capability} by "
            f"{record.flavour} {record.version}"
        )


def inspect_plan(file: Path, model: Path | None) -> dict[str, Any]:
    """Print what is known about an engine; returns it as a JSON object."""
    from cxredge.engine.inspection import inspect_engine

    found = inspect_engine(file, model)
    contract = found.record.read_contract()
    print_rows(str(file), {**record_rows(found), **{f"model: {k}": v for k, v in contract_rows(contract).items()}})
    print_lines("damaged", found.damage)
    print_lines("would be rebuilt here", found.rebuild)
    print_lines("cannot be told here", found.unknown)
    if found.usable:
        click.echo("fits this machine")
    return found.to_dict()


def inspect_checkpoint(folder: Path) -> dict[str, Any]:
    """Print what is in a checkpoint; returns it as a JSON object."""
    try:
        from cxredge_train.checkpoint import load_trained
        from cxredge_train.code_report import layer_codes
        from cxredge_train.networks import Generator
    except ModuleNotFoundError as error:
        raise MissingExtraError("inspecting a checkpoint", "train") from error
    trained = load_trained(folder)
    network = trained.config.network
    rows = {
        "name": trained.config.name,
        "architecture": network.architecture,
        "width": network.width,
        "input_size": network.input_size,
        "has adapted": "yes" if trained.adapted else "no",
        "has a_self": "yes" if trained.distilled else "no",
        **trained.facts,
    }
    print_rows(str(folder), rows)
    codes: list[LayerCode] = []
    if trained.distilled and isinstance(trained.generator, Generator):
        codes = list(layer_codes(trained.generator, trained.self_code))
        print_codes(codes)
    return {
        "kind": "checkpoint",
        "folder": str(folder),
        "config": trained.config.to_dict(),
        "facts": trained.facts,
        "a_self": [code.to_dict() for code in codes],
    }


def print_codes(codes: Iterable[LayerCode]) -> None:
    """Print the size of γ and β of a_self by layer, and how far they are from a_seg."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="a_self in the encoder's AdaIN layers (norms divided by √C)", title_justify="left")
    table.add_column("layer")
    for column in ("C", "‖γ‖", "‖β‖", "‖γ − γ_seg‖", "‖β − β_seg‖"):
        table.add_column(column, justify="right")
    for code in codes:
        sizes = (code.gamma, code.beta, code.gamma_from_seg, code.beta_from_seg)
        table.add_row(code.layer, str(code.channels), *(f"{size:.3f}" for size in sizes))
    Console().print(table)


def record_rows(found: EngineInspection) -> dict[str, object]:
    """What is shown of a sidecar."""
    parity = found.record.parity
    rows = {name.replace("_", " "): getattr(found.record, name) for name in RECORD_ROWS}
    share = None if parity is None else f"{parity.get('flipped_pixels')} of {parity.get('pixels')} mask pixels flipped"
    return {**rows, "parity": share or "has not been run"}


def print_rows(title: str, rows: Mapping[str, object]) -> None:
    """Print a table of names and values."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(title), title_justify="left", show_header=False)
    for name, value in rows.items():
        table.add_row(escape(name.replace("_", " ")), escape(str(value)))
    Console().print(table)


def print_lines(heading: str, lines: Iterable[str]) -> None:
    """Print each line after a heading."""
    for line in lines:
        click.echo(f"{heading}: {line}")
