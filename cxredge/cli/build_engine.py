"""``cxredge build-engine``: from a model to a TensorRT engine that has been proved on its GPU."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cxredge.errors import EngineError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from cxredge.backends import Backend
    from cxredge.cli.typed_model import Precision
    from cxredge.engine.device import Device
    from cxredge.engine.flavour import Flavour, FlavourChoice
    from cxredge.engine.progress import Show
    from cxredge.engine.record import Batches, EngineRecord

FLAVOURS = ("auto", "tensorrt", "tensorrt-rtx")
PRECISIONS = ("fp32", "fp16", "int8")
NOT_A_PLAN = (".json", ".onnx")
"""Endings that a plan may not have: its sidecar's, and that of models."""


def parse_batches(_ctx: click.Context, _parameter: click.Parameter, value: str) -> Batches:
    """``1,4,16`` or ``8`` as smallest, best and largest batch."""
    from cxredge.engine.record import require_batches

    numbers = value.split(",")
    try:
        batches = tuple(int(number) for number in (numbers * 3 if len(numbers) == 1 else numbers))
        require_batches(batches)
    except (ValueError, EngineError) as error:
        raise click.BadParameter(f"{value!r} is not a smallest, best and largest batch such as 1,4,16") from error
    smallest, best, largest = batches
    return smallest, best, largest


def parse_capability(_ctx: click.Context, _parameter: click.Parameter, value: str | None) -> str | None:
    """``89``, ``8.9`` or ``sm_89`` as ``8.9``."""
    if value is None:
        return None
    match = re.fullmatch(r"(?:sm_?)?(\d{1,2})\.?(\d)", value.lower())
    if match is None:
        raise click.BadParameter(f"{value!r} is not a compute capability such as 89 or 8.9")
    return f"{int(match[1])}.{match[2]}"


def parse_output(_ctx: click.Context, _parameter: click.Parameter, value: Path | None) -> Path | None:
    """A file name whose sidecar has another one."""
    if value is not None and value.suffix.lower() in NOT_A_PLAN:
        raise click.BadParameter(f"{value} is no name for a plan; call it {value.with_suffix('.plan').name}")
    return value


@click.command(
    "build-engine",
    short_help="Compile a model for an NVIDIA GPU.",
    epilog="Exit codes: 0 the engine is there, 1 nothing was built, 2 wrong usage.",
)
@click.argument("model", required=False, type=click.Path(path_type=Path))
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="Of the engine. [default: int8 with --calibration-data, fp16 for an FP32 model, else the model's own]",
)
@click.option(
    "--calibration-data",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Training set, folder or radiographs to calibrate INT8 on; may be repeated.",
)
@click.option(
    "--compute-capability",
    callback=parse_capability,
    help="GPU to build for, as 89 or 8.9; another than this machine's needs tensorrt-rtx. [default: this machine's]",
)
@click.option(
    "--batch", "batches", default="1,4,16", show_default=True, callback=parse_batches, help="Smallest, best, largest."
)
@click.option("--flavour", type=click.Choice(FLAVOURS), default="auto", show_default=True, help="Which TensorRT.")
@click.option(
    "--parity-images",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Radiographs, folders, or data sets (their test rows) for the parity run. [default: made radiographs]",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    callback=parse_output,
    help="Plan to write, with its sidecar .json beside it. [default: the cache, where 'segment' finds it]",
)
def command(
    model: Path | None,
    precision: Precision | None,
    calibration_data: tuple[Path, ...],
    compute_capability: str | None,
    batches: Batches,
    flavour: FlavourChoice,
    parity_images: tuple[Path, ...],
    output: Path | None,
) -> None:
    """Compile MODEL (default: the bundled one) with TensorRT or TensorRT for RTX.

    On the GPU that it is for, the engine is compared with ONNX Runtime before it is kept; an engine whose masks
    differ is deleted. Without that GPU, tensorrt-rtx builds for it all the same, and the comparison is left out.
    """
    from cxredge.bundle import bundled_model
    from cxredge.cli.typed_model import typed_model
    from cxredge.engine.cache import model_sha256
    from cxredge.engine.order import Order, carry_out, model_contract
    from cxredge.engine.progress import BuildProgress

    model = model or bundled_model()
    contract = model_contract(model)
    compiler, device, capability = target(flavour, compute_capability)
    inputs = parity_inputs(parity_images, contract.input_size) if device else None
    with progress_bar() as show:
        typed = typed_model(model, contract, precision, calibration_data, show)
        order = Order(model_sha256(model), compiler, capability, batches, typed.precision, device, typed.options)
        started = datetime.now(timezone.utc).replace(microsecond=0)
        plan, record = carry_out(
            order,
            typed.make,
            output=output,
            inputs=inputs,
            open_engine=open_engine if device else None,
            progress=BuildProgress(show),
        )
    describe(plan, record, kept=datetime.fromisoformat(record.created) < started)


def target(choice: FlavourChoice, capability: str | None) -> tuple[Flavour, Device | None, str]:
    """Who builds, the GPU where it is in this machine, and its compute capability; no TensorRT object is made.

    Raises:
        EngineError: no GPU and none named, no TensorRT, or one that cannot build for that GPU.
    """
    from cxredge.engine.device import find_device, require_device
    from cxredge.engine.flavour import find_flavour

    if capability is None:
        device = require_device()
        return find_flavour(choice), device, device.compute_capability
    device_here = find_device()
    if device_here is not None and device_here.compute_capability == capability:
        return find_flavour(choice), device_here, capability
    flavour = find_flavour(choice, cross=True)
    if not flavour.cross_builds:
        here = f"whose GPU has {device_here.compute_capability}" if device_here else "which has none"
        raise EngineError(
            f"{flavour.name} builds only for the GPU of this machine, {here}; for compute capability {capability} "
            "build there, or cross-build with tensorrt-rtx (pip install 'cxredge[rtx]')"
        )
    if capability not in flavour.capabilities:
        known = ", ".join(flavour.capabilities)
        raise EngineError(
            f"{flavour.name} {flavour.version} cannot cross-build for compute capability {capability}, only for {known}"
        )
    return flavour, None, capability


def parity_inputs(paths: tuple[Path, ...], size: int) -> NDArray[np.float32]:
    """Network inputs ``(N, 1, size, size)`` of the radiographs that the parity run is on."""
    import numpy as np

    from cxredge.cli.export import parity_radiographs
    from cxredge.preprocessing import network_input

    return np.stack([network_input(radiograph, size) for radiograph in parity_radiographs(paths)])[:, None]


def open_engine(plan: Path, record: EngineRecord) -> Backend:
    """Load an engine on this machine's GPU."""
    from cxredge.backends.tensorrt import TensorRTBackend

    return TensorRTBackend(plan, record)


@contextmanager
def progress_bar() -> Iterator[Show]:
    """A bar for each phase that goes on, on a terminal; silent elsewhere."""
    from threading import Lock

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    console = Console(stderr=True)
    tasks: dict[str, TaskID] = {}
    lock = Lock()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:

        def show(phase: str, done: int, total: int) -> None:
            with lock:  # TensorRT has threads of its own
                task = tasks.setdefault(phase, TaskID(-1))
                if task == -1:
                    task = tasks[phase] = progress.add_task(phase)
            progress.update(task, completed=done, total=total, visible=done < total)

        yield show


def describe(plan: Path, record: EngineRecord, *, kept: bool) -> None:
    """Print what was built, now or earlier, and what the parity run found."""
    built = "from the cache" if kept else f"built in {record.build_seconds:.1f} s"
    batches = ",".join(map(str, record.batches))
    click.echo(
        f"{plan}: {record.contract['name']}, {record.precision}, batches {batches}, for compute capability "
        f"{record.compute_capability} by {record.flavour} {record.version}; {record.plan_bytes / 2**20:.1f} MiB, "
        f"{built}"
    )
    if record.parity is None:
        click.echo(
            "parity has not been run: there is no GPU of that compute capability in this machine; "
            "run 'cxredge build-engine' there before you rely on the engine"
        )
    else:
        click.echo(
            f"parity on {record.parity['images']} images: {record.parity['flipped_pixels']} of "
            f"{record.parity['pixels']} mask pixels flipped, largest logit difference "
            f"{record.parity['max_abs_difference']:.2g}"
        )
