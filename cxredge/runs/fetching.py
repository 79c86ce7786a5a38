"""Inputs at URLs become files for as long as they are worked on, so that everything after reads files only."""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Generator, Iterable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from cxredge.radiograph import Radiograph
from cxredge.runs.journal import Entry
from cxredge.runs.proof import Signature
from cxredge.runs.reader_process import Reader
from cxredge.runs.results import Target
from cxredge.runs.run import Writer, segment_targets
from cxredge.segmenter import Segmenter


class FetchingReader:
    """Reads files, and what it has fetched from URLs into a folder that only this user can read.

    Args:
        reader: reads the files; stays open.
    """

    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        self._folder: Path | None = None
        self._urls: dict[Path, str] = {}
        self._places: dict[str, Path] = {}

    def placed(self, target: Target) -> Target:
        """``target`` with the file that its URL will be fetched to; one that is a file stays as it is."""
        if target.url is None:
            return target
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="cxredge-"))
        place = self._folder / f"{uuid.uuid4().hex}{target.source.suffix}"
        self._urls[place] = target.url
        self._places[target.stem.as_posix()] = place
        return replace(target, source=place)

    def discard(self, stem: str) -> None:
        """Remove what was fetched for the results ``stem``."""
        place = self._places.pop(stem, None)
        if place is not None:
            self._urls.pop(place, None)
            place.unlink(missing_ok=True)

    def weigh(self, path: Path) -> tuple[Signature | None, int]:
        """Fetch a source if it has to be; gives its signature and its pixels.

        Raises:
            InputError: it cannot be fetched.
        """
        url = self._urls.get(path)
        if url is None:
            return self._reader.weigh(path)
        from cxredge.runs.remote import fetch

        signature = fetch(url, path)
        return signature, self._reader.weigh(path)[1]

    def read(self, path: Path) -> Radiograph:
        return self._reader.read(path)

    def close(self) -> None:
        """Remove everything that was fetched."""
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def __enter__(self) -> FetchingReader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def segment_sources(
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
    """:func:`~cxredge.runs.run.segment_targets` for targets of which some, or all, are to be fetched."""
    with FetchingReader(reader) as fetching:
        entries = segment_targets(
            segmenter,
            map(fetching.placed, targets),
            output,
            fetching,
            write,
            batch_size=batch_size,
            workers=workers,
            keep_identity=keep_identity,
            memory_share=memory_share,
            clear_unfinished=clear_unfinished,
        )
        with closing(entries):
            for entry in entries:
                fetching.discard(entry.stem)
                yield entry
