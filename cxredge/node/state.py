"""The folder in which a node keeps what it has accepted and has not sent back yet."""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from cxredge.errors import OutputError

PRIVATE = 0o700


class StateFolder:
    """``incoming/`` for what is being received, ``objects/`` and ``results/`` for what the queue names.

    Only one node at a time uses a folder, and only its user can read it.

    Args:
        path: the folder; made where it does not exist.

    Raises:
        OutputError: it cannot be made, or another node uses it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path = path.absolute()
        self.incoming, self.objects, self.results = (path / name for name in ("incoming", "objects", "results"))
        self.outbox = path / "outbox"
        try:
            for folder in (path, self.incoming, self.objects, self.results):
                folder.mkdir(parents=True, exist_ok=True, mode=PRIVATE)
            self._lock = FileLock(path / "lock")
            self._lock.acquire(timeout=0)
        except Timeout as error:
            raise OutputError(f"{path}: another node uses it; stop that, or pass another --state") from error
        except OSError as error:
            raise OutputError(f"{path}: cannot be used for the node's state: {error.strerror or error}") from error

    @property
    def free_bytes(self) -> int:
        """Bytes that are free on the disk."""
        return shutil.disk_usage(self.path).free

    def keep(self, received: Path) -> Path:
        """Move a file into ``objects/``; it is on the disk when this returns.

        Raises:
            OSError: it cannot.
        """
        place = self.objects / f"{uuid.uuid4().hex}.dcm"
        move_durably(received, place)
        return place

    def write_result(self, content: bytes) -> Path:
        """Write a file into ``results/``; it is on the disk when this returns.

        Raises:
            OSError: it cannot.
        """
        place = self.results / f"{uuid.uuid4().hex}.dcm"
        part = self.incoming / place.name
        part.write_bytes(content)
        move_durably(part, place)
        return place

    def remove_strangers(self, known: Iterable[Path]) -> int:
        """Remove files that no job names: a node was killed between writing them and telling the queue.

        None of them was acknowledged. Gives their number.
        """
        kept = set(known)
        strangers = [
            path
            for folder in (self.incoming, self.objects, self.results)
            for path in folder.iterdir()
            if path not in kept
        ]
        for path in strangers:
            remove(path)
        return len(strangers)

    def remove_stale(self, seconds: float) -> None:
        """Remove files of ``incoming/`` that were not written to for a while."""
        oldest = time.time() - seconds
        for path in self.incoming.iterdir():
            with suppress(OSError):
                if path.stat().st_mtime < oldest:
                    remove(path)

    @contextmanager
    def upload(self) -> Iterator[Path]:
        """Name of a file for an upload, which is removed at the end."""
        place = self.incoming / uuid.uuid4().hex
        try:
            yield place
        finally:
            remove(place)

    def close(self) -> None:
        """Let other nodes use the folder."""
        self._lock.release()


def move_durably(source: Path, target: Path) -> None:
    """Rename a file on the same disk; content and name are on the disk when this returns."""
    with source.open("rb") as file:
        os.fsync(file.fileno())
    source.replace(target)
    sync_folder(target.parent)


def sync_folder(folder: Path) -> None:
    """Put the names in a folder on the disk."""
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def remove(path: Path) -> None:
    """Remove a file where it is there; what cannot be removed is found again at the next start."""
    with suppress(OSError):
        path.unlink()
