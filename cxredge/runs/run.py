"""A run over many radiographs into one output folder: what is kept, what is done, in which order.

The command line gives the inputs and shows what happens; :mod:`cxredge.pipeline` overlaps the stages;
:mod:`cxredge.runs.journal` remembers.
"""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

from cxredge.errors import CxredgeError, InputError, OutputError
from cxredge.runs.identity import read_identity
from cxredge.runs.journal import Entry, Journal, still_holds
from cxredge.runs.names import require_inside
from cxredge.runs.proof import Proof, Signature, file_proof, full_path
from cxredge.runs.reader_process import Reader
from cxredge.runs.results import Target, Written, clear_existing, record, remove_file
from cxredge.segmenter import Inferred, Prepared, Segmentation, Segmenter

Writer: TypeAlias = Callable[[Path, Target, Segmentation], Written]
"""Writes the files of one target below a folder."""

NO_MEMORY = "is too large for this machine's memory"
VANISHED_IN_A_ROW = 10
"""Files of an input folder that may vanish one after another before the run stops: the folder itself has."""
CHECKED_AT_ONCE = 1000
"""Targets whose files are compared with the journal before the next are taken."""


@dataclass(frozen=True)
class Plan:
    """What a run has to do.

    Attributes:
        targets: all, in input order.
        kept: stems of those whose results are there already.
        gone: stems of results in the journal whose source is no input any more; they stay.
    """

    targets: tuple[Target, ...]
    kept: frozenset[Path]
    gone: tuple[str, ...]

    def keeps(self, target: Target) -> bool:
        """Whether the results of a target are there already."""
        return target.stem in self.kept

    @property
    def to_do(self) -> Iterator[Target]:
        """Targets that are to be segmented, in order."""
        return (target for target in self.targets if not self.keeps(target))

    @property
    def leading(self) -> int:
        """Number of kept targets before the first that is to be segmented."""
        return next((number for number, target in enumerate(self.targets) if not self.keeps(target)), len(self.targets))


def make_plan(targets: tuple[Target, ...], journal: Journal, workers: int) -> Plan:
    """Compare the targets with the journal; removes what is left of results that have to be made again.

    Raises:
        OutputError: a file of the output folder cannot be removed.
    """
    if not len(journal):
        return Plan(targets, frozenset(), ())
    kept = set()
    with ThreadPoolExecutor(workers) as pool:
        remaining = iter(targets)
        while some := list(islice(remaining, CHECKED_AT_ONCE)):
            entries = [journal.entry(target.stem.as_posix()) for target in some]
            holds = pool.map(partial(still_holds, journal.folder), some, entries)
            for target, entry, done in zip(some, entries, holds, strict=True):
                if done:
                    kept.add(target.stem)
                elif entry:
                    remove_files(journal.folder, entry)
    return Plan(targets, frozenset(kept), entries_left_over(targets, journal))


def entries_left_over(targets: tuple[Target, ...], journal: Journal) -> tuple[str, ...]:
    """Stems in the journal that belong to no target; those of inputs that have another name now are removed."""
    stems = {target.stem.as_posix() for target in targets}
    left_over = [stem for stem in journal.stems() if stem not in stems]
    if not left_over:
        return ()
    sources = {target.address for target in targets}
    gone = []
    for stem in left_over:
        entry = journal.entry(stem)
        if entry and entry.source in sources:
            remove_files(journal.folder, entry)
            journal.remove(stem)
        else:
            gone.append(stem)
    return tuple(gone)


def remove_files(folder: Path, entry: Entry) -> None:
    """Remove the files of an entry whose input is done again."""
    for name in entry.files:
        remove_file(require_inside(folder, name))


def results_in_order(plan: Plan, journal: Journal, entries: Iterator[Entry]) -> Iterator[tuple[dict[str, Any], bool]]:
    """The lines of ``results.jsonl`` after the leading ones, in input order, and whether each is new.

    A new entry is in the journal before its line is given.

    Args:
        plan: of the run.
        journal: of the output folder.
        entries: of ``plan.to_do``, in any order.
    """
    early: set[str] = set()
    for target in islice(plan.targets, plan.leading, None):
        stem = target.stem.as_posix()
        if plan.keeps(target):
            yield kept_line(journal, stem), False
        elif stem in early:
            early.remove(stem)
            yield kept_line(journal, stem), True
        elif (new := record_of(stem, journal, entries, early)) is None:
            return
        else:
            yield new, True
    for stem in plan.gone:
        yield kept_line(journal, stem), False


def record_of(stem: str, journal: Journal, entries: Iterator[Entry], early: set[str]) -> dict[str, Any] | None:
    """The record of a stem as soon as its entry comes; others that come before go into ``early``.

    Every entry is put into the journal, which keeps what has come early. ``None`` where no more entries come.
    """
    for entry in entries:
        journal.append(entry)
        if entry.stem == stem:
            return entry.record
        early.add(entry.stem)
    return None


def kept_line(journal: Journal, stem: str) -> dict[str, Any]:
    """The line of ``results.jsonl`` of an entry that is known to be there."""
    entry = journal.entry(stem)
    if entry is None:
        raise OutputError(f"{journal.folder}: its journal was changed while it was in use")
    return entry.record


def leading_lines(plan: Plan, journal: Journal) -> Iterator[dict[str, Any]]:
    """The lines of ``results.jsonl`` of the kept targets before the first that is to be segmented."""
    for target in islice(plan.targets, plan.leading):
        yield kept_line(journal, target.stem.as_posix())


def segment_targets(
    segmenter: Segmenter,
    targets: Iterable[Target],
    output: Path,
    reader: Reader,
    write: Writer,
    *,
    batch_size: int = 1,
    workers: int | None = None,
    keep_identity: bool = False,
    memory_share: float = 1.0,
    clear_unfinished: bool = True,
) -> Generator[Entry, None, None]:
    """Segment ``targets`` and write their files; yields what goes into the journal, in order.

    When it is closed early, files of targets that were not yielded are removed, unless ``clear_unfinished`` is off.
    With ``keep_identity`` a record says whose radiograph it is. ``memory_share`` is the part of the machine that the
    caller has for itself.

    Raises:
        OutputError: a result cannot be written; the run stops there.
    """
    signatures: dict[Path, Signature | None] = {}
    under_way: deque[Target] = deque()

    def begun() -> Iterator[Target]:
        for target in targets:
            under_way.append(target)
            yield target

    def weigh(target: Target) -> float:
        signatures[target.stem], pixels = reader.weigh(target.source)
        return pixels

    def prepare(target: Target) -> Prepared:
        with room_in_memory():
            started = time.perf_counter()
            radiograph = reader.read(target.source)
            spent = 1e3 * (time.perf_counter() - started)
            prepared = segmenter.prepare(radiograph)
            return replace(prepared, milliseconds={**prepared.milliseconds, "read": spent})

    def finish(target: Target, prepared: Prepared, inferred: Inferred) -> tuple[dict[str, Any], dict[str, Proof]]:
        with room_in_memory():
            segmentation = segmenter.finish(prepared, inferred)
            started = time.perf_counter()
            require_inside(output, target.stem)
            written = write(output, target, segmentation)
            spent = 1e3 * (time.perf_counter() - started)
            line = record(target, segmentation, spent, written.names, written.refused)
            if keep_identity:
                line |= read_identity(target.source)
            return line, proofs(output, written.names)

    outcomes = segmenter.process(
        begun(), prepare, finish, batch_size=batch_size, workers=workers, cost=weigh, memory_share=memory_share
    )
    try:
        with closing(outcomes):
            for outcome in outcomes:
                if isinstance(outcome, OutputError):
                    raise outcome
                target = under_way[0]
                if isinstance(outcome, CxredgeError):
                    clear_existing(output, [target])
                    outcome = record(target, outcome), {}
                line, files = outcome
                under_way.popleft()
                signature = signatures.pop(target.stem, None)
                yield Entry(target.address, target.stem.as_posix(), signature, files, line)
    finally:
        if clear_unfinished:
            with suppress(OutputError):  # on a disk that is gone; --resume finds what stays
                clear_existing(output, under_way)


def proofs(folder: Path, names: Sequence[str]) -> dict[str, Proof]:
    """Proof of each file just written.

    Raises:
        OutputError: it cannot be read.
    """
    try:
        return {name: file_proof(folder / name) for name in names}
    except OSError as error:
        raise OutputError(f"{error.filename}: cannot be read again: {error.strerror or error}") from error


@contextmanager
def room_in_memory() -> Iterator[None]:
    """Turn running out of memory into an error of the radiograph at hand."""
    try:
        yield
    except MemoryError as error:
        raise InputError(NO_MEMORY) from error


def while_folders_last(entries: Generator[Entry, None, None], folders: Iterable[Path]) -> Generator[Entry, None, None]:
    """Pass ``entries`` on as long as input folders do not vanish under the run.

    Raises:
        InputError: ten files in a row that were found in one of ``folders`` are not there any more.
    """
    roots = {folder: full_path(folder) + os.sep for folder in folders}
    vanished = 0
    with closing(entries):
        for entry in entries:
            yield entry
            root = next((folder for folder, path in roots.items() if entry.source.startswith(path)), None)
            vanished = vanished + 1 if entry.failed and entry.signature is None and root else 0
            if vanished == VANISHED_IN_A_ROW:
                raise InputError(f"{vanished} of its files in a row cannot be reached; is it still mounted?", root)
