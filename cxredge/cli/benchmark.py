"""``cxredge benchmark``: how fast a model is here, stage by stage, and against other backends."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast

import click
import numpy as np

from cxredge.backends import BACKENDS, open_backend
from cxredge.errors import BackendError, InputError, MissingExtraError

if TYPE_CHECKING:
    from cxredge.backends import Backend, BackendName
    from cxredge.benchmark.measure import Measurement
    from cxredge.benchmark.report import Row
    from cxredge.benchmark.roofline import Floor

COMPILED = "torch-compile"
OF_CHECKPOINTS = ("torch", COMPILED)
RIVALS = (*(name for name in BACKENDS if name != "auto"), COMPILED)


@dataclass(frozen=True)
class Contestant:
    """A model on a backend.

    Attributes:
        backend: one of :data:`RIVALS`, or ``auto``.
        model: its file or folder.
        named: whether that is another than MODEL and MODEL's checkpoint.
    """

    backend: str
    model: Path
    named: bool = False


def parse_rivals(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[tuple[str, str], ...]:
    """``NAME[=MODEL]`` separated by commas, as pairs of the name and the model, which may be empty."""
    pairs = [(name, model) for name, _, model in (one.partition("=") for one in value.split(",") if one)]
    unknown = [name for name, _ in pairs if name not in RIVALS]
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is not one of {', '.join(RIVALS)}")
    return tuple(pairs)


def parse_batches(_ctx: click.Context, _param: click.Parameter, value: str) -> tuple[int, ...]:
    """Batch sizes separated by commas."""
    numbers = value.split(",")
    if not all(number.strip().isdecimal() and int(number) > 0 for number in numbers):
        raise click.BadParameter(f"{value!r} is not a list of numbers from 1 on, such as 1,8,32")
    return tuple(dict.fromkeys(map(int, numbers)))


@click.command("benchmark", short_help="Measure a model's speed stage by stage.")
@click.argument("model", type=click.Path(path_type=Path))
@click.option("--backend", type=click.Choice(BACKENDS), default="auto", show_default=True, help="What runs MODEL.")
@click.option(
    "--against",
    callback=parse_rivals,
    default="",
    metavar="NAME[=FILE],...",
    help=f"Others to take turns with, of {', '.join(RIVALS)}; on another model where a FILE is named.",
)
@click.option("--checkpoint", type=click.Path(path_type=Path), help="MODEL's checkpoint, for torch and torch-compile.")
@click.option("--batch", "batches", callback=parse_batches, default="1,8", show_default=True, help="Batch sizes.")
@click.option("--images", multiple=True, type=click.Path(path_type=Path), help="Radiographs. [default: made ones]")
@click.option("--repeats", type=click.IntRange(1), default=20, show_default=True, help="Timed runs of each.")
@click.option("--json", "json_file", type=click.Path(path_type=Path), help="Write the figures to this file.")
@click.option("--figure", type=click.Path(path_type=Path), help="Draw them into this PNG (extra 'evaluate').")
def command(
    model: Path,
    backend: BackendName,
    against: tuple[tuple[str, str], ...],
    checkpoint: Path | None,
    batches: tuple[int, ...],
    images: tuple[Path, ...],
    repeats: int,
    json_file: Path | None,
    figure: Path | None,
) -> None:
    """Measure MODEL ("bundled" for the bundled one): a model file, an engine or a checkpoint folder.

    Times are percentiles of runs in which the contestants take turns; "ratio" is the median of each
    run's ratio to that of MODEL beside it. "floor" is the roofline: what the arithmetic and the memory
    traffic of the layers take on this device at best (cxredge/benchmark/roofline.py says how it is computed).
    torch is the network of the checkpoint as the trainer computes it.
    """
    from cxredge.benchmark.measure import measure
    from cxredge.benchmark.report import content, print_host, print_rows
    from cxredge.bundle import bundled_model
    from cxredge.runs.results import write_atomically

    draw = None if figure is None else require_drawing()
    own = Contestant(backend, bundled_model() if str(model) == "bundled" else model)
    rivals = [Contestant(name, rival_model(name, file, own.model, checkpoint), bool(file)) for name, file in against]
    with tempfile.TemporaryDirectory() as folder, opened([own, *rivals]) as (contestants, backends):
        sources = find_sources(images, Path(folder))
        with progress(len(batches) * (1 + repeats) * len(backends)) as step:
            measurement = measure(backends, sources, Path(folder), batches=batches, repeats=repeats, step=step)
        rows = describe(measurement, contestants, backends, sources)
    print_host(measurement)
    print_rows(rows)
    if json_file is not None:
        write_atomically(json_file, json.dumps(content(measurement, rows, len(sources)), indent=2).encode())
    if figure is not None and draw is not None:
        draw(measurement, rows, figure)


def rival_model(name: str, file: str, own: Path, checkpoint: Path | None) -> Path:
    """What a rival runs: the file that is named with it, the checkpoint, or MODEL itself."""
    if file:
        return Path(file)
    if name not in OF_CHECKPOINTS or (checkpoint is None and own.is_dir()):
        return own
    if checkpoint is None:
        raise click.UsageError(f"--against {name} needs --checkpoint, the folder that {own} was exported from")
    return checkpoint


def open_contestant(contestant: Contestant) -> Backend:
    """Load a contestant.

    Raises:
        BackendError: PyTorch cannot compile it.
        MissingExtraError: a checkpoint, and PyTorch is not installed.
    """
    if contestant.backend != COMPILED:
        return open_backend(contestant.model, cast("BackendName", contestant.backend))
    backend = open_backend(contestant.model, "torch")
    from cxredge_train.inference import CheckpointBackend

    assert isinstance(backend, CheckpointBackend)
    backend.generator.compile(dynamic=False)
    size = backend.contract.input_size
    try:
        backend.run(np.zeros((1, 1, size, size), np.float32))
    except RuntimeError as error:  # base of what torch.compile raises
        raise BackendError(f"{contestant.model}: PyTorch cannot compile it: {error}") from error
    return backend


@contextmanager
def opened(wanted: Sequence[Contestant]) -> Iterator[tuple[dict[str, Contestant], dict[str, Backend]]]:
    """All contestants and their backends by name; those that are the same as an earlier one are left out.

    Raises:
        BackendError: two take inputs of different sizes.
    """
    contestants: dict[str, Contestant] = {}
    backends: dict[str, Backend] = {}
    try:
        for contestant in wanted:
            backend = open_contestant(contestant)
            name = backend.name if contestant.backend == "auto" else contestant.backend
            name = f"{name} {contestant.model.name}" if contestant.named else name
            if name in contestants and contestants[name].model != contestant.model:
                name = f"{name} ({contestant.model.parent})"
            if name in contestants:
                backend.close()
                continue
            contestants[name], backends[name] = contestant, backend
            require_same_input(backends, name)
        yield contestants, backends
    finally:
        for backend in backends.values():
            backend.close()


def require_same_input(backends: Mapping[str, Backend], name: str) -> None:
    """Raise :class:`BackendError` where contestant ``name`` takes inputs of another size than the first."""
    (first, reference), size = next(iter(backends.items())), backends[name].contract.input_size
    if size != reference.contract.input_size:
        raise BackendError(f"{name} takes inputs of {size} pixels, {first} of {reference.contract.input_size}")


def find_sources(images: Sequence[Path], folder: Path) -> list[Path]:
    """The radiographs to measure on: those named, or made ones in ``folder``."""
    from cxredge.runs.discovery import find_radiographs
    from cxredge.sample import write_samples

    if not images:
        return write_samples(folder / "made")
    found = [target.source for target in find_radiographs(images, folder).targets]
    if not found:
        raise InputError("there are no radiographs among the images")
    return found


@contextmanager
def progress(total: int) -> Iterator[Callable[[], None]]:
    """A progress bar on a terminal; yields what advances it by one."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("benchmark", total=total)
        yield lambda: bar.advance(task)


def describe(
    measurement: Measurement,
    contestants: Mapping[str, Contestant],
    backends: Mapping[str, Backend],
    sources: Sequence[Path],
) -> list[Row]:
    """What there is to say about each series besides its times."""
    from cxredge.benchmark.measure import flipped_pixels
    from cxredge.benchmark.memory import peak_memory
    from cxredge.benchmark.report import Row

    batches = [series.batch for series in measurement.series]
    memory = {name: peak_memory(partial(open_contestant, who), batches) for name, who in contestants.items()}
    flipped = flipped_pixels(backends, sources)
    floors = {name: floors_of(contestants[name].model, backend, batches) for name, backend in backends.items()}
    return [
        Row(
            series=series,
            ratio=series.ratio_to(measurement.reference(series)),
            model=backends[series.contestant].contract.name,
            precision=backends[series.contestant].contract.precision,
            flipped_pixels=flipped[series.contestant],
            memory=memory[series.contestant][series.batch],
            floor=floors[series.contestant].get(series.batch),
        )
        for series in measurement.series
    ]


def floors_of(model: Path, backend: Backend, batches: Sequence[int]) -> dict[int, Floor | None]:
    """Roofline floor by batch size; nothing where the graph that runs, or the device's figures, are not known."""
    from cxredge.benchmark.roofline import find_roof, floor_of

    if not model.is_file() or model.suffix != ".onnx":
        return {}
    try:
        from cxredge_calibration.model_file import read_model
        from cxredge_export.roofline_cost import layer_costs
    except ModuleNotFoundError as error:
        click.echo(f"no roofline floor: {MissingExtraError('reading the graph', 'calibration')} ({error})", err=True)
        return {}
    graph, contract = read_model(model)
    roof = find_roof(backend.name)
    if roof is None or contract.precision != backend.contract.precision:
        return {}
    return {batch: floor_of(layer_costs(graph, batch), roof) for batch in batches}


def require_drawing() -> Callable[[Measurement, Sequence[Row], Path], None]:
    """What draws the figure, before anything is measured.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from cxredge.benchmark.figure import draw
    except ModuleNotFoundError as error:
        raise MissingExtraError("drawing figures", "evaluate") from error
    return draw
