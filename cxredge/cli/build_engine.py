"""``cxredge build-engine``: from a model to a TensorRT engine that has been proved on its GPU."""

from __future__ import annotations

import re
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from cxredge.errors import EngineError

if TYPE_CHECKING:
    from cxredge.engine.flavour import FlavourChoice
    from cxredge.engine.record import Batches, EngineRecord
    from cxredge.engine.typed_model import Precision

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
    epilog="Exit codes: 0 the engine is there, 1 nothing was built (a full disk and Ctrl-C too), 2 wrong usage.",
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
    from cxredge.backends.engines import open_plan
    from cxredge.bundle import bundled_model
    from cxredge.engine.build import Wish, build_engine
    from cxredge.engine.progress import progress_bar

    wish = Wish(flavour, compute_capability, batches, precision, calibration_data, parity_images, output)
    started = datetime.now(timezone.utc).replace(microsecond=0)
    with progress_bar() as show:
        plan, record = build_engine(model or bundled_model(), wish, open_plan, show, partial(click.echo, err=True))
    describe(plan, record, kept=datetime.fromisoformat(record.created) < started)


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
