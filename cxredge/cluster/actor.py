"""What runs on the nodes: an actor that holds a model and does blocks of targets with the stages of every other run.

Targets come and entries go as JSON, a column of text each, so that whatever a file's name is made of passes. Results
are written into the output folder, which all nodes share; nothing of a radiograph passes through Ray.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast
from uuid import uuid4

from cxredge.backends import BackendName
from cxredge.errors import ClusterError, CxredgeError, OutputError
from cxredge.pipeline import CORES_VARIABLE
from cxredge.runs.journal import STATE_FOLDER, Entry
from cxredge.runs.results import Target, remove_file, write_atomically
from cxredge.runs.writer import ResultWriter

if TYPE_CHECKING:
    from cxredge.segmenter import Segmenter

TARGETS, ENTRIES = "target", "entry"
"""Columns of what an actor takes and gives."""
STOP = "stop"
"""Key of what an actor gives in place of an entry where the run cannot go on."""
ATTEMPTS = "attempts"
"""Folder beside the journal: of each block that is being done a file, with a byte for each time that it was begun."""
MOST_ATTEMPTS = 5
"""After which a block is taken for what ends the actors that do it."""


@dataclass(frozen=True)
class ModelOrder:
    """Which model to load, and how.

    Attributes:
        model: absolute path, the same on all nodes; ``None`` for the bundled model.
        backend: that runs it, or ``auto``.
        build: whether an engine may be built.
        cores: that it may use.
    """

    model: str | None
    backend: BackendName
    build: bool
    cores: int


@dataclass(frozen=True)
class Found:
    """What a node has found when it loaded the model.

    Attributes:
        version: of cxredge.
        digest: SHA-256 of the model.
        backend: that runs it.
        contract: of the model, as JSON.
        host: the node's name.
    """

    version: str
    digest: str
    backend: BackendName
    contract: str
    host: str


@dataclass(frozen=True)
class Order:
    """All that an actor has to know.

    Attributes:
        model: which, and how.
        expected: what the first node found; every other has to find the same.
        output: absolute path of the output folder, the same on all nodes.
        mark: name of the file in the output folder by which a node knows that it is this run's; see :func:`marked`.
        write: writes the results.
        batch_size: radiographs in one inference.
        workers: threads that read and write; ``None`` for one a core.
        timeout: seconds that reading one file may take.
        keep_identity: whether records say whose radiograph it is.
    """

    model: ModelOrder
    expected: Found
    output: str
    mark: str
    write: ResultWriter
    batch_size: int
    workers: int | None
    timeout: float
    keep_identity: bool


class SegmentingActor:
    """Does blocks of targets; what keeps it from that, it gives as an answer.

    Args:
        order: what to do.
    """

    def __init__(self, order: Order) -> None:
        be_a_worker(order.model.cores)
        self._order = order
        self._opened = ExitStack()
        self._failure: str | None = None
        try:
            self._open()
        except CxredgeError as error:
            self._failure = f"{host()}: {error}"

    def _open(self) -> None:
        from cxredge.pipeline import available_cores
        from cxredge.runs.reader_process import ProcessReader

        order = self._order
        require_shared(Path(order.output), order.mark)
        self._segmenter = self._opened.enter_context(load(order.model))
        require_same(found_by(order.model, self._segmenter), order.expected)
        self._reader = ProcessReader(order.workers or available_cores(), order.timeout)
        self._opened.callback(self._reader.close)

    def __call__(self, block: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
        """Segment the targets of a block; gives their entries, and last why the run has to stop, if it has."""
        if self._failure:
            return {ENTRIES: [json.dumps({STOP: self._failure})]}
        targets = [target_from(str(text)) for text in block[TARGETS]]
        done: list[str] = []
        try:
            with attempt(Path(self._order.output), targets):
                done += (json.dumps(asdict(entry)) for entry in self._entries(targets))
        except CxredgeError as error:
            done.append(json.dumps({STOP: f"{host()}: {error}"}))
        return {ENTRIES: done}

    def _entries(self, targets: Sequence[Target]) -> Generator[Entry, None, None]:
        from cxredge.runs.fetching import segment_sources

        order = self._order
        return segment_sources(
            self._segmenter,
            targets,
            Path(order.output),
            self._reader,
            order.write,
            batch_size=order.batch_size,
            workers=order.workers,
            keep_identity=order.keep_identity,
            memory_share=min(1.0, order.model.cores / (os.cpu_count() or 1)),
            clear_unfinished=False,  # an actor may die late, when a newer run has written these files
        )


@contextmanager
def attempt(output: Path, targets: Sequence[Target]) -> Iterator[None]:
    """Take note that a block is begun, until it is done: Ray gives one that is lost to another actor, without end.

    Raises:
        ClusterError: it was begun so often that it must be what ends the actors.
        OutputError: the note cannot be written.
    """
    first, last = targets[0], targets[-1]
    note = attempts_of(output) / hashlib.sha256(str(first.stem).encode(errors="surrogatepass")).hexdigest()[:32]
    try:
        note.parent.mkdir(exist_ok=True)
        with note.open("ab") as file:
            begun = file.tell() + file.write(b".")
    except OSError as error:
        raise OutputError(f"{note}: cannot be written: {error.strerror or error}") from error
    if begun > MOST_ATTEMPTS:
        raise ClusterError(f"{MOST_ATTEMPTS} actors were lost with the inputs from {first.label} to {last.label}")
    yield
    remove_file(note)


def attempts_of(output: Path) -> Path:
    """Where the notes of attempts lie."""
    return output / STATE_FOLDER / ATTEMPTS


@contextmanager
def marked(output: Path) -> Iterator[str]:
    """Put a file of a new name beside the notes of attempts, for this run's nodes to see; yields its name.

    The folder's lock has to be held. Notes that an earlier run has left are removed, and those of this run at the end.

    Raises:
        OutputError: it cannot be written.
    """
    folder, mark = attempts_of(output), f"run-{uuid4().hex}"
    shutil.rmtree(folder, ignore_errors=True)
    write_atomically(folder / mark, b"")
    try:
        yield mark
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def survey(order: ModelOrder) -> Found | str:
    """Load the model on a node as an actor will; gives what was found, or what is wrong."""
    be_a_worker(order.cores)
    try:
        with load(order) as segmenter:
            return found_by(order, segmenter)
    except CxredgeError as error:
        return f"{host()}: {error}"


def be_a_worker(cores: int) -> None:
    """Make this process of Ray's one that works with ``cores`` cores.

    Processes that read are started without Ray's own program, which Python would import in each.
    """
    os.environ[CORES_VARIABLE] = str(cores)
    sys.modules["__main__"].__file__ = None


def load(order: ModelOrder) -> Segmenter:
    """The segmenter of an actor: one radiograph a core at once, as in a run on one machine."""
    from cxredge.segmenter import Segmenter

    return Segmenter.load(order.model, backend=order.backend, threads=1, build=order.build)


def found_by(order: ModelOrder, segmenter: Segmenter) -> Found:
    """What this node has found."""
    from cxredge import __version__
    from cxredge.bundle import bundled_model
    from cxredge.runs.proof import model_digest

    digest = model_digest(Path(order.model) if order.model else bundled_model())
    return Found(__version__, digest, cast(BackendName, segmenter.backend), segmenter.contract.to_json(), host())


def require_same(found: Found, expected: Found) -> None:
    """Raise :class:`ClusterError` where this node would give other results than the first."""
    for name in ("version", "digest", "backend"):
        here, there = getattr(found, name), getattr(expected, name)
        if here != there:
            what = "model" if name == "digest" else name
            raise ClusterError(
                f"has another {what} than {expected.host} ({here[:16]}, there {there[:16]}); results would be mixed"
            )


def require_shared(output: Path, mark: str) -> None:
    """Raise :class:`ClusterError` where a node does not see the output folder of this run, but none or its own."""
    if not (attempts_of(output) / mark).is_file():
        raise ClusterError(
            f"does not see the output folder {output}; it has to be on a file system that all nodes share"
        )


def host() -> str:
    """Name of this node."""
    import platform

    return platform.node() or "a node"


def target_text(target: Target) -> str:
    """A target as JSON."""
    return json.dumps([str(target.source), target.stem.as_posix(), target.url])


def target_from(text: str) -> Target:
    """The target in JSON."""
    source, stem, url = json.loads(text)
    return Target(Path(source), Path(stem), url)
