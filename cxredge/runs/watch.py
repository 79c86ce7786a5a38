"""A folder that fills: which of its files are complete, under which names their results go, where they go after.

The folder is polled, which works on network folders too. Nothing in it is changed unless asked.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path, PurePath

from cxredge.errors import OutputError
from cxredge.runs.discovery import files_below, leads_out, looks_like_radiograph
from cxredge.runs.journal import Entry, Journal
from cxredge.runs.names import safe_path
from cxredge.runs.proof import Signature, full_path, source_signature
from cxredge.runs.results import PART_SUFFIX, Target, remove_file

PARTIAL_SUFFIXES = frozenset({".part", ".partial", ".tmp", ".temp", ".filepart", ".crdownload", ".download", ".!ut"})
"""Names that programs give to files while they write them; the rename that ends it makes another file of them."""


@dataclass(frozen=True)
class Sighting:
    """A state of a file: its signature, when it was first seen so, and whether it was given out."""

    signature: Signature
    since: float
    given: bool = False


class Arrivals:
    """The complete files of a folder, each state of a file once.

    A file is complete when its size and time of change have stayed the same for ``settle`` seconds by this
    machine's clock, whatever the clock of a server says.

    Args:
        folder: that is watched, with the folders in it.
        excluded: folders whose files are no arrivals: of the results, of what is done.
        settle: seconds without a change.
        clock: gives seconds.
    """

    def __init__(
        self, folder: Path, excluded: Iterable[Path], settle: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._folder = folder
        self._excluded = tuple(path.resolve() for path in excluded)
        self._settle = settle
        self._clock = clock
        self._seen: dict[Path, Sighting] = {}

    def poll(self) -> list[Path]:
        """Files that have become complete since the last call, in order of name.

        Raises:
            OSError: the folder cannot be reached.
        """
        os.scandir(self._folder).close()
        now, seen, complete = self._clock(), {}, []
        for path in files_below(self._folder, self._excluded[0]):
            signature = source_signature(path)
            if signature is None or self._is_other(path):
                continue
            sighting = self._seen.get(path)
            if sighting is None or sighting.signature != signature:
                sighting = Sighting(signature, now)
            if not sighting.given and now - sighting.since >= self._settle:
                sighting = replace(sighting, given=True)
                if looks_like_radiograph(path) and not leads_out(path, self._folder):
                    complete.append(path)
            seen[path] = sighting
        self._seen = seen
        return complete

    def forget(self, path: Path) -> None:
        """Take a file for a new one when it is seen again."""
        self._seen.pop(path, None)

    def _is_other(self, path: Path) -> bool:
        if path.suffix.lower() in PARTIAL_SUFFIXES:
            return True
        return len(self._excluded) > 1 and any(path.resolve().is_relative_to(folder) for folder in self._excluded[1:])


def watched_target(path: Path, folder: Path, journal: Journal) -> Target:
    """The name of a file's results: its whole name, so that it never depends on what else will arrive.

    Another file of the same name that arrives after the first was moved away gets a number.
    """
    name = safe_path(PurePath(path.relative_to(folder)))
    for number in count(1):
        stem = Path(name) if number == 1 else Path(name).with_name(f"{name.name}~{number}")
        entry = journal.entry(stem.as_posix())
        if entry is None or (entry.source == full_path(path) and not is_moved(entry)):
            return Target(path, stem)
    raise AssertionError("numbers have no end")


def is_moved(entry: Entry) -> bool:
    """Whether the source of an entry was put where ``--move-done`` said."""
    return entry.moved_to is not None and Path(entry.moved_to).exists()


def resting_place(target: Target, folder: Path) -> Path:
    """Where a source goes when it is done: below ``folder`` under the name of its results, which is taken once."""
    return folder / target.stem


def move_source(source: Path, place: Path) -> None:
    """Move a file so that it is never seen half written, nor lost, nor written over another.

    Raises:
        OutputError: it cannot be moved, or there is a file already.
    """
    part = place.with_name(f".{place.name}{PART_SUFFIX}")
    try:
        if place.exists():
            raise OutputError(f"{source}: cannot be moved: {place} exists already")
        place.parent.mkdir(parents=True, exist_ok=True)
        if source.stat().st_dev == place.parent.stat().st_dev:
            source.rename(place)
            return
        shutil.copy2(source, part)
        part.rename(place)
        source.unlink()
    except OSError as error:
        with suppress(OutputError):  # what stood in the way is what is to be told
            remove_file(part)
        raise OutputError(f"{source}: cannot be moved: {error.strerror or error}") from error
