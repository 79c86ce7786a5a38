"""What ``cxredge segment`` and ``cxredge watch`` have in common: options, and all that a run holds open."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from cxredge import __version__
from cxredge.backends import BACKENDS
from cxredge.cli import STOPPED
from cxredge.logs import FORMATS as LOG_FORMATS
from cxredge.logs import LEVELS, LogFormat, hide_logs, show_logs
from cxredge.runs.formats import FORMATS, SEGMENTATION_TYPES, Format, SegmentationType, format_names

if TYPE_CHECKING:
    from cxredge.backends import BackendName
    from cxredge.contract import Contract
    from cxredge.runs.discovery import Source
    from cxredge.runs.interruption import Interruption
    from cxredge.runs.journal import Entry, Journal, RunIdentity
    from cxredge.runs.reader_process import Reader
    from cxredge.runs.results import Target
    from cxredge.runs.run import Writer
    from cxredge.runs.writer import ResultWriter
    from cxredge.segmenter import Segmenter

Function = TypeVar("Function", bound=Callable[..., Any])


def parse_formats(ctx: click.Context, param: click.Parameter, value: str) -> tuple[Format, ...]:
    """Names of formats, joined by commas; each once, in the order of :data:`~cxredge.runs.formats.FORMATS`."""
    wanted = {name.strip() for name in value.split(",")}
    unknown = sorted(wanted.difference(FORMATS))
    if unknown:
        raise click.BadParameter(f"{unknown[0]!r} is none of {', '.join(FORMATS)}", ctx, param)
    return tuple(name for name in FORMATS if name in wanted)


@dataclass(frozen=True)
class RunOptions:
    """Options of a run, as the command line gives them."""

    model: Path | None
    backend: BackendName
    batch_size: int
    workers: int | None
    no_build: bool
    no_overlay: bool
    formats: tuple[Format, ...]
    seg_type: SegmentationType
    keep_identity: bool
    timeout: float | None
    log_format: LogFormat | None
    log_level: str | None

    @property
    def logs(self) -> bool:
        """Whether standard error carries logs instead of what is meant for a person."""
        return bool(self.log_format or self.log_level)


def run_options(timeout: float | None) -> Callable[[Function], Function]:
    """Decorate a command with the options of :class:`RunOptions`; ``timeout`` is the default of ``--timeout``."""
    options = (
        click.option(
            "--model",
            type=click.Path(path_type=Path),
            help="Model file, or engine (.plan). [default: the bundled model]",
        ),
        click.option(
            "--backend", type=click.Choice(BACKENDS), default="auto", show_default=True, help="What runs the model."
        ),
        click.option(
            "--batch-size", type=click.IntRange(1), default=1, show_default=True, help="Radiographs in one inference."
        ),
        click.option("--workers", type=click.IntRange(1), help="Threads that read and write. [default: one a core]"),
        click.option(
            "--no-build", is_flag=True, help="With --backend tensorrt: never build an engine, use what there is."
        ),
        click.option("--no-overlay", is_flag=True, help="Write no pictures with contours."),
        click.option(
            "--format",
            "formats",
            callback=parse_formats,
            metavar="NAME,...",
            default="png",
            show_default=True,
            help=f"What to write, one or several of {','.join(FORMATS)}.",
        ),
        click.option(
            "--seg-type",
            type=click.Choice(SEGMENTATION_TYPES),
            default="binary",
            show_default=True,
            help="Of dicom-seg; labelmap is for viewers that know DICOM of 2024 or later.",
        ),
        click.option(
            "--keep-identity",
            is_flag=True,
            help="Put Patient ID and Accession Number of DICOM files into the results. [default: nothing of a patient]",
        ),
        click.option(
            "--timeout",
            type=click.FloatRange(0.1),
            default=timeout,
            show_default=timeout is not None,
            metavar="SECONDS",
            help="Leave out a file that takes longer to read. Files are then read in processes that can be ended.",
        ),
        click.option(
            "--log-format",
            type=click.Choice(LOG_FORMATS),
            help="Log to standard error, instead of what is shown there.",
        ),
        click.option("--log-level", type=click.Choice(LEVELS), help="Lowest level that is logged. [default: info]"),
    )

    def decorate(function: Function) -> Function:
        for option in reversed(options):
            function = option(function)
        return function

    return decorate


def options_from(arguments: dict[str, Any]) -> RunOptions:
    """The options of a run among the arguments of a command."""
    return RunOptions(**{field.name: arguments[field.name] for field in fields(RunOptions)})


@dataclass(frozen=True)
class Session:
    """All that a run holds open."""

    segmenter: Segmenter
    journal: Journal
    reader: Reader
    write: Writer
    options: RunOptions
    interruption: Interruption

    @property
    def model(self) -> str:
        """Name of the model."""
        return self.segmenter.contract.name

    @property
    def backend(self) -> str:
        """What runs it."""
        return self.segmenter.backend

    def entries(self, targets: Iterable[Target]) -> Generator[Entry, None, None]:
        """Segment ``targets``; see :func:`cxredge.runs.run.segment_targets`.

        Raises:
            Interrupted: a signal asked to stop.
        """
        from cxredge.runs.fetching import segment_sources

        return self.interruption.each(
            segment_sources(
                self.segmenter,
                targets,
                self.journal.folder,
                self.reader,
                self.write,
                batch_size=self.options.batch_size,
                workers=self.options.workers,
                keep_identity=self.options.keep_identity,
            )
        )


@contextmanager
def open_session(
    command: str, inputs: Iterable[Source], output: Path, options: RunOptions, *, resume: bool
) -> Iterator[Session]:
    """Load the model and open the output folder.

    Args:
        command: that asks.
        inputs: files, folders and URLs that the user named.
        output: the output folder.
        options: of the run.
        resume: go on with the run whose results are there.

    Raises:
        CxredgeError: the model cannot be loaded, or the folder cannot be used for this run.
    """
    from cxredge.bundle import bundled_model
    from cxredge.runs.interruption import Interruption
    from cxredge.runs.journal import Journal
    from cxredge.runs.proof import model_digest
    from cxredge.segmenter import Segmenter

    with (
        logging_to_stderr(options),
        Segmenter.load(options.model, backend=options.backend, threads=1, build=not options.no_build) as segmenter,
    ):
        digest = model_digest(options.model or bundled_model())
        identity = identity_of(command, inputs, options, digest, segmenter.backend)
        with (
            Journal(output, identity, resume=resume) as journal,
            Interruption(STOPPED) as interruption,  # before processes that read: what ends them comes first at the end
            open_reader(options) as reader,
        ):
            yield Session(
                segmenter, journal, reader, writer_for(options, segmenter.contract, digest), options, interruption
            )


def identity_of(command: str, inputs: Iterable[Source], options: RunOptions, digest: str, backend: str) -> RunIdentity:
    """What a run with a model of SHA-256 ``digest`` has to have in common with one that it goes on with."""
    from cxredge.runs.journal import RunIdentity
    from cxredge.runs.proof import full_path

    return RunIdentity(
        command=command,
        version=__version__,
        model=digest,
        backend=backend,
        formats=formats_of(options),
        inputs=tuple(one if isinstance(one, str) else full_path(one) for one in inputs),
    )


def formats_of(options: RunOptions) -> tuple[str, ...]:
    """What a run writes, so that results of different kinds are not mixed."""
    names = format_names(options.formats, overlay=not options.no_overlay, segmentation_type=options.seg_type)
    return (*names, *(("identity",) if options.keep_identity else ()))


def writer_for(options: RunOptions, contract: Contract, digest: str) -> ResultWriter:
    """What writes the results of a run with a model of SHA-256 ``digest``."""
    from cxredge.algorithm import Algorithm
    from cxredge.runs.writer import ResultWriter

    algorithm = Algorithm.of(contract, digest)
    return ResultWriter(options.formats, algorithm, not options.no_overlay, options.seg_type)


@contextmanager
def open_reader(options: RunOptions) -> Iterator[Reader]:
    """What reads the files: processes where there is a time limit, else the worker threads themselves."""
    from cxredge.pipeline import available_cores
    from cxredge.runs.reader_process import ProcessReader, ThreadReader

    workers = options.workers or available_cores()
    reader: Reader = ThreadReader() if options.timeout is None else ProcessReader(workers, options.timeout)
    try:
        yield reader
    finally:
        reader.close()


@contextmanager
def logging_to_stderr(options: RunOptions) -> Iterator[None]:
    """Logs on standard error, where the user asked for them."""
    if not options.logs:
        yield
        return
    handler = show_logs(options.log_format or "text", options.log_level or "info")
    try:
        yield
    finally:
        hide_logs(handler)
